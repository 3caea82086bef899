"""Hands services to routes. `main.py` builds them once and puts them on the app."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from compute_orchestrator.services.claims import ClaimService
from compute_orchestrator.services.health import HealthService
from compute_orchestrator.services.heartbeats import HeartbeatService
from compute_orchestrator.services.jobs import JobService
from compute_orchestrator.services.operations import OperationService
from compute_orchestrator.services.queues import QueueService
from compute_orchestrator.services.reaper import Reaper
from compute_orchestrator.services.reports import ReportService
from compute_orchestrator.services.stats import StatsService
from compute_orchestrator.services.sync import SyncService
from compute_orchestrator.services.workers import WorkerService


@dataclass(frozen=True, slots=True)
class Services:
    """All that routes may call."""

    jobs: JobService
    claims: ClaimService
    heartbeats: HeartbeatService
    reports: ReportService
    operations: OperationService
    reaper: Reaper
    queues: QueueService
    workers: WorkerService
    stats: StatsService
    sync: SyncService
    health: HealthService


@dataclass(frozen=True, slots=True)
class SizeLimits:
    """The largest JSON of each kind, in bytes."""

    payload: int
    result: int
    checkpoint: int
    error: int
    progress: int


async def _services(request: Request) -> Services:
    return request.app.state.services


async def _limits(request: Request) -> SizeLimits:
    return request.app.state.size_limits


Wired = Annotated[Services, Depends(_services)]
Limits = Annotated[SizeLimits, Depends(_limits)]
