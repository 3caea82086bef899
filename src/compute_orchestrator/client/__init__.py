"""The SDK: a client for producers and operators, and workers that run your functions.

What is listed in `__all__` is public and stays; every other name in here may change.
"""

from compute_orchestrator.client import errors, models
from compute_orchestrator.client.blocking import BlockingClient, BlockingJobHandle
from compute_orchestrator.client.calling import CallNext, Middleware
from compute_orchestrator.client.client import JobFilter, OrchestratorClient
from compute_orchestrator.client.context import Context
from compute_orchestrator.client.errors import ClientError, Problem
from compute_orchestrator.client.functions import TaskFunction
from compute_orchestrator.client.handle import JobHandle
from compute_orchestrator.client.jobs import JobOptions, NewJob
from compute_orchestrator.client.outcomes import Cancelled, Permanent, Retry, Snooze
from compute_orchestrator.client.reports import Report
from compute_orchestrator.client.retries import Patience
from compute_orchestrator.client.syncing import BeatItem, ClaimPart
from compute_orchestrator.client.worker import Worker

__all__ = [
    "BeatItem",
    "BlockingClient",
    "BlockingJobHandle",
    "CallNext",
    "Cancelled",
    "ClaimPart",
    "ClientError",
    "Context",
    "JobFilter",
    "JobHandle",
    "JobOptions",
    "Middleware",
    "NewJob",
    "OrchestratorClient",
    "Patience",
    "Permanent",
    "Problem",
    "Report",
    "Retry",
    "Snooze",
    "TaskFunction",
    "Worker",
    "errors",
    "models",
]
