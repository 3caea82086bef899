"""Sync: a busy worker's reports, heartbeats and claim, each committed and answered by itself."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from compute_orchestrator.domain.errors import (
    OrchestratorError,
    Overloaded,
    ShuttingDown,
    Unavailable,
)
from compute_orchestrator.domain.job import Job
from compute_orchestrator.domain.lease import ClaimRequest, Heartbeat, LeaseState
from compute_orchestrator.domain.report import Report
from compute_orchestrator.domain.values import JsonText
from compute_orchestrator.services.claims import ClaimService
from compute_orchestrator.services.heartbeats import HeartbeatService
from compute_orchestrator.services.reports import ReportService
from compute_orchestrator.services.workers import WorkerService

Item = TypeVar("Item")
Answer = TypeVar("Answer")

NOT_WRITTEN = (Overloaded, ShuttingDown)
"""Refused before anything was done."""


@dataclass(frozen=True, slots=True)
class SyncCall:
    """What a worker says and asks. An item that can't be taken is the error that it is answered."""

    worker_id: str
    about: JsonText | None
    reports: Sequence[Report | OrchestratorError]
    heartbeats: Sequence[Heartbeat | OrchestratorError]
    claim: ClaimRequest | None
    wait_seconds: float


@dataclass(frozen=True, slots=True)
class SyncAnswer:
    """In the order of the call."""

    reports: Sequence[Job | OrchestratorError]
    heartbeats: Sequence[LeaseState | OrchestratorError]
    jobs: Sequence[Job]


class SyncService:
    def __init__(
        self,
        reports: ReportService,
        heartbeats: HeartbeatService,
        claims: ClaimService,
        workers: WorkerService,
    ) -> None:
        self._reports = reports
        self._heartbeats = heartbeats
        self._claims = claims
        self._workers = workers

    async def sync(self, call: SyncCall, gone: "asyncio.Future[None] | None" = None) -> SyncAnswer:
        """All parts at the same time, so that they may share a commit.

        Raises Unavailable; the whole call is to be repeated then, and has no second effect.
        """
        self._workers.seen(call.worker_id, call.about)
        claiming = asyncio.create_task(self._claim(call, gone))
        try:
            heartbeats, reports = await self._items(call)
        except Unavailable:
            await self._forget(call, claiming)
            raise
        except asyncio.CancelledError:
            claiming.cancel()  # else it would wait, and take jobs, for nobody
            raise
        return SyncAnswer(reports, heartbeats, await claiming)

    async def _items(
        self, call: SyncCall
    ) -> tuple[list[LeaseState | OrchestratorError], list[Job | OrchestratorError]]:
        reporting = {it.key for it in call.reports if isinstance(it, Report)}
        beating = {it.key for it in call.heartbeats if isinstance(it, Heartbeat)}
        if reporting & beating:  # a heartbeat after its job's report would find the lease gone
            return await self._beat(call), await self._report(call)
        return await asyncio.gather(self._beat(call), self._report(call))

    async def _beat(self, call: SyncCall) -> list[LeaseState | OrchestratorError]:
        return await _each(call.heartbeats, partial(self._heartbeats.beat_many, call.worker_id))

    async def _report(self, call: SyncCall) -> list[Job | OrchestratorError]:
        return await _each(call.reports, partial(self._reports.report_many, call.worker_id))

    async def _claim(self, call: SyncCall, gone: "asyncio.Future[None] | None") -> Sequence[Job]:
        if call.claim is None:
            return ()
        alone = not call.reports and not call.heartbeats
        try:
            if alone and call.wait_seconds:
                return await self._claims.claim_patiently(call.claim, call.wait_seconds, gone)
            return await self._claims.claim(call.claim)
        except NOT_WRITTEN:
            # No jobs is an answer. A claim that may be a repeat must not have it: it may hold some.
            if alone or call.claim.request_id is not None:
                raise
            return ()  # what was said is answered all the same

    async def _forget(self, call: SyncCall, claiming: "asyncio.Task[Sequence[Job]]") -> None:
        """Nobody will be told of these leases. Who gave a request id asks for them again."""
        with suppress(Unavailable):
            jobs = await claiming
            if call.claim is not None and call.claim.request_id is None:
                await self._claims.hand_back(jobs)


async def _each(
    items: Sequence[Item | OrchestratorError],
    take: Callable[[Sequence[Item]], Awaitable[Sequence[Answer | OrchestratorError]]],
) -> list[Answer | OrchestratorError]:
    """What `take` answers each item, and the errors in between that were errors before."""
    good = [item for item in items if not isinstance(item, OrchestratorError)]
    answers = iter(await take(good) if good else ())
    return [item if isinstance(item, OrchestratorError) else next(answers) for item in items]
