"""Jobs: create one or many (repeatably, with a key), read, list, tell their story."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

from compute_orchestrator.db.sessions import WriteSession
from compute_orchestrator.db.statements.create import (
    KeyedCall,
    create_jobs,
    find_keys,
    remember_keys,
)
from compute_orchestrator.db.statements.read import find_jobs, page_of_events, page_of_jobs
from compute_orchestrator.domain.cursors import decode_cursor, encode_cursor
from compute_orchestrator.domain.errors import (
    IdempotencyMismatch,
    JobNotFound,
    OrchestratorError,
)
from compute_orchestrator.domain.job import Job, NewJob
from compute_orchestrator.domain.lifecycle import FINAL
from compute_orchestrator.domain.listing import Event, JobFilter
from compute_orchestrator.domain.values import JobId
from compute_orchestrator.services import ranks
from compute_orchestrator.services.coalescer import Coalescer, Operation
from compute_orchestrator.services.transactions import Transactions
from compute_orchestrator.services.wakeups import Wakeups

LIST_WINDOW = 10_000
"""How many rows a page looks at before it answers with what it found."""
LARGEST_PAGE_BYTES = 8 * 1024 * 1024
"""A page ends with the job whose payload, result and checkpoint bring it there."""


@dataclass(frozen=True, slots=True)
class CreateCall:
    """All of these jobs or none.

    `key` makes it repeatable; `body_hash` tells a repeat from another use.
    """

    jobs: Sequence[NewJob]
    key: str | None = None
    body_hash: str = ""


@dataclass(frozen=True, slots=True)
class Created:
    """The jobs, in the order of the call, and whether this call made them.

    Of a repeated call those are missing that were pruned meanwhile.
    """

    jobs: Sequence[Job]
    new: bool


@dataclass(frozen=True, slots=True)
class JobPage:
    jobs: Sequence[Job]
    next_cursor: str | None


@dataclass(frozen=True, slots=True)
class EventPage:
    events: Sequence[Event]
    next_cursor: str | None


class JobService:
    def __init__(self, transactions: Transactions, coalescer: Coalescer, wakeups: Wakeups) -> None:
        self._transactions = transactions
        self._coalescer = coalescer
        self._wakeups = wakeups
        self._create = Operation(
            "create",
            ranks.CREATE,
            self._create_batch,
            subject=lambda call: call.key,
            size=lambda call: sum(len(job.payload or "") for job in call.jobs),
            weight=lambda call: len(call.jobs),
        )

    async def create(self, call: CreateCall) -> Created:
        """Make jobs, or find those that this key made.

        Raises IdempotencyMismatch when the key was used with another body.
        """
        return await self._coalescer.submit(self._create, call)

    async def _create_batch(
        self, session: WriteSession, calls: Sequence[CreateCall]
    ) -> Sequence[Created | OrchestratorError]:
        keys = [call.key for call in calls if call.key is not None]
        used = await find_keys(session, keys) if keys else {}
        before = await find_jobs(session, [it for call in used.values() for it in call.job_ids])
        # Between the two the pruner may have removed the last job and its key.
        used = {key: call for key, call in used.items() if any(it in before for it in call.job_ids)}
        fresh = [call for call in calls if call.key not in used]
        jobs = await create_jobs(session, [job for call in fresh for job in call.jobs])
        created = iter(jobs)
        made = {id(call): list(islice(created, len(call.jobs))) for call in fresh}
        keyed = [
            KeyedCall(call.key, call.body_hash, tuple(job.id for job in made[id(call)]))
            for call in fresh
            if call.key is not None
        ]
        if keyed:
            await remember_keys(session, keyed)
        return [
            Created(made[id(call)], new=True)
            if id(call) in made
            else _repeated(call, used[call.key or ""], before)
            for call in calls
        ]

    async def get_patiently(
        self, job_id: JobId, wait_seconds: float, gone: "asyncio.Future[None]"
    ) -> Job:
        """A job as soon as it is final, or as it stands when the time is over or the client gone.

        Raises JobNotFound.
        """
        loop = asyncio.get_running_loop()
        over = loop.time() + wait_seconds
        with self._wakeups.watching(job_id) as sleeper:
            while True:
                job = await self.get(job_id)
                left = over - loop.time()
                if job.status in FINAL or left <= 0 or self._wakeups.closing:
                    return job
                if not await sleeper.sleep(left, gone):
                    return await self.get(job_id)

    async def get(self, job_id: JobId) -> Job:
        """Raises JobNotFound."""
        async with self._transactions.read() as session:
            job = (await find_jobs(session, [job_id])).get(job_id)
        if job is None:
            raise JobNotFound(job_id)
        return job

    async def page(self, wanted: JobFilter, limit: int, cursor: str | None) -> JobPage:
        """A page of jobs. Raises ValidationFailed for a foreign cursor."""
        kind = "newest" if wanted.newest_first else "oldest"
        after = None if cursor is None else decode_cursor(kind, cursor)
        async with self._transactions.read() as session:
            page = await page_of_jobs(
                session,
                wanted,
                after,
                limit=limit,
                window=LIST_WINDOW,
                largest=LARGEST_PAGE_BYTES,
            )
        next_cursor = None if page.next_after is None else encode_cursor(kind, page.next_after)
        return JobPage(page.jobs, next_cursor)

    async def events(self, job_id: JobId, limit: int, cursor: str | None) -> EventPage:
        """A page of a job's trail, oldest first. Raises JobNotFound, ValidationFailed."""
        after = 0 if cursor is None else decode_cursor("events", cursor)
        async with self._transactions.read() as session:
            if not await find_jobs(session, [job_id]):
                raise JobNotFound(job_id)
            events = await page_of_events(session, job_id, after, limit)
        next_cursor = encode_cursor("events", events[-1].id) if len(events) == limit else None
        return EventPage(events, next_cursor)


def _repeated(
    call: CreateCall, used: KeyedCall, jobs: dict[JobId, Job]
) -> Created | OrchestratorError:
    if used.body_hash != call.body_hash:
        return IdempotencyMismatch(
            f"This Idempotency-Key made {_named(used.job_ids)} from another body. "
            "Send the same body again, or use a new key."
        )
    return Created([jobs[job_id] for job_id in used.job_ids if job_id in jobs], new=False)


def _named(ids: Sequence[JobId]) -> str:
    return f"job {ids[0]}" if len(ids) == 1 else f"{len(ids)} jobs, {ids[0]} to {ids[-1]},"
