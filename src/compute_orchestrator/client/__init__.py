"""The SDK: a client for producers and operators, and workers that run your functions.

What is listed in `__all__` is public and stays; every other name in here may change.
"""

from compute_orchestrator.client import errors, models
from compute_orchestrator.client.client import JobFilter, JobOptions, OrchestratorClient
from compute_orchestrator.client.context import Context
from compute_orchestrator.client.errors import ClientError, Problem
from compute_orchestrator.client.outcomes import Permanent, Retry, Snooze
from compute_orchestrator.client.reports import Report
from compute_orchestrator.client.retries import Patience
from compute_orchestrator.client.worker import Worker

__all__ = [
    "ClientError",
    "Context",
    "JobFilter",
    "JobOptions",
    "OrchestratorClient",
    "Patience",
    "Permanent",
    "Problem",
    "Report",
    "Retry",
    "Snooze",
    "Worker",
    "errors",
    "models",
]
