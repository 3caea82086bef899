"""Claims: hand out jobs, one lease each; a repeated request gets the same leases again."""

import asyncio
import logging
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from compute_orchestrator.db.sessions import WriteSession
from compute_orchestrator.db.statements.claim import claim_jobs, claimed_before
from compute_orchestrator.domain.errors import OrchestratorError
from compute_orchestrator.domain.job import Job
from compute_orchestrator.domain.lease import ClaimRequest, LeaseKey
from compute_orchestrator.domain.values import LeaseToken
from compute_orchestrator.services import ranks
from compute_orchestrator.services.coalescer import Coalescer, Operation
from compute_orchestrator.services.reports import ReportService
from compute_orchestrator.services.wakeups import Sleeper, Wakeups
from compute_orchestrator.services.workers import WorkerService

logger = logging.getLogger(__name__)


@dataclass(eq=False)
class Copy:
    """One call that waits with a `request_id`."""

    sleeper: Sleeper
    is_old: bool = False
    ended: asyncio.Event = field(default_factory=asyncio.Event)


class ClaimService:
    def __init__(
        self,
        coalescer: Coalescer,
        reports: ReportService,
        workers: WorkerService,
        wakeups: Wakeups,
        *,
        lease_seconds: float,
    ) -> None:
        self._coalescer = coalescer
        self._reports = reports
        self._workers = workers
        self._wakeups = wakeups
        self._lease_seconds = lease_seconds
        self._copies: dict[tuple[str, str], Copy] = {}
        self._claim = Operation(
            "claim",
            ranks.CLAIM,
            self._claim_batch,
            subject=_subject,
            weight=lambda request: request.limit,
        )

    async def claim(self, request: ClaimRequest) -> Sequence[Job]:
        """The best jobs of these queues, each under a new lease, at most the request's limit.

        A request with a `request_id` whose leases still run gets those again, and no others.
        """
        await self._end_older_copy(request)
        return await self.claim_once(request)

    async def claim_patiently(
        self, request: ClaimRequest, wait_seconds: float, gone: "asyncio.Future[None] | None"
    ) -> Sequence[Job]:
        """The same, but waits where there is nothing, until time is over or the client is gone."""
        await self._end_older_copy(request)
        loop = asyncio.get_running_loop()
        over = loop.time() + wait_seconds
        with (
            self._wakeups.waiting_for_work(request.queues) as sleeper,
            self._waiting_copy(request, sleeper) as copy,
        ):
            while True:
                if copy.is_old:
                    return ()
                woken_for = self._wakeups.ready(sleeper)
                jobs = await self.claim_once(request)
                if jobs:
                    if woken_for is not None and all(job.queue != woken_for for job in jobs):
                        self._wakeups.work({woken_for: 1})
                    return jobs
                left = over - loop.time()
                if left <= 0 or self._wakeups.closing or not await sleeper.sleep(left, gone):
                    return ()

    async def claim_once(self, request: ClaimRequest) -> Sequence[Job]:
        """One look, whoever else waits with this request."""
        self._workers.seen(request.worker_id)
        return await self._coalescer.submit(self._claim, request)

    @contextmanager
    def _waiting_copy(self, request: ClaimRequest, sleeper: Sleeper) -> Generator["Copy"]:
        copy = Copy(sleeper)
        key = _subject(request)
        if key is not None:
            self._copies[key] = copy
        try:
            yield copy
        finally:
            copy.ended.set()
            if key is not None and self._copies.get(key) is copy:
                del self._copies[key]

    async def _end_older_copy(self, request: ClaimRequest) -> None:
        """Who repeats a request no longer hears the answer to an older copy of it. If that one took
        a job after the repeat was answered, nobody would know of the lease.
        """
        key = _subject(request)
        while key is not None and (older := self._copies.get(key)) is not None:
            older.is_old = True
            older.sleeper.ring()
            await older.ended.wait()

    async def _claim_batch(
        self, session: WriteSession, requests: Sequence[ClaimRequest]
    ) -> Sequence[Sequence[Job] | OrchestratorError]:
        repeatable = [request for request in requests if request.request_id is not None]
        before = await claimed_before(session, repeatable) if repeatable else {}
        answers: dict[int, Sequence[Job]] = {}
        by_queues: dict[tuple[str, ...], list[ClaimRequest]] = {}
        for request in requests:
            held = before.get((request.worker_id, request.request_id or ""))
            if held is not None:
                answers[id(request)] = held
            else:
                by_queues.setdefault(request.queues, []).append(request)
        for queues, group in by_queues.items():
            jobs = await claim_jobs(session, group, queues, self._lease_seconds)
            answers.update(zip(map(id, group), jobs, strict=True))
        return [answers[id(request)] for request in requests]

    async def hand_back(self, jobs: Sequence[Job]) -> None:
        """Release leases whose claimer went away before it was told of them."""
        for job in jobs:
            key = LeaseKey(job.id, job.lease_token or LeaseToken(""))
            try:
                await self._reports.release_by_server(key)
            except OrchestratorError:
                # Its lease runs out then, as if the worker had died.
                logger.warning("job %s could not be handed back", job.id)


def _subject(request: ClaimRequest) -> tuple[str, str] | None:
    return None if request.request_id is None else (request.worker_id, request.request_id)
