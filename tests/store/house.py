"""The services on a store, without HTTP, and what can be read of the store behind their backs."""

from asyncio import Future
from collections.abc import Sequence
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from compute_orchestrator.db.engine import Store
from compute_orchestrator.db.models import Base
from compute_orchestrator.domain.job import Job
from compute_orchestrator.domain.lease import ClaimRequest
from compute_orchestrator.domain.values import JobId
from compute_orchestrator.services.claims import ClaimService
from compute_orchestrator.services.coalescer import Coalescer
from compute_orchestrator.services.heartbeats import HeartbeatService
from compute_orchestrator.services.jobs import JobService
from compute_orchestrator.services.operations import OperationService
from compute_orchestrator.services.promoter import Promoter
from compute_orchestrator.services.queues import QueueService
from compute_orchestrator.services.reaper import Pass, Reaper
from compute_orchestrator.services.reports import ReportService
from compute_orchestrator.services.stats import StatsService
from compute_orchestrator.services.sync import SyncService
from compute_orchestrator.services.transactions import Transactions
from compute_orchestrator.services.wakeups import Wakeups
from compute_orchestrator.services.workers import WorkerService
from tests.builders import claim_request, create_call
from tests.clocks import ManualClock

INTERVAL_SECONDS = 2.0
WHOLE = {
    table: f"SELECT * FROM {table} ORDER BY 1"  # noqa: S608 - our own tables
    for table in Base.metadata.tables
}

Rows = Sequence[dict[str, Any]]


class House:
    """What the lifespan wires, without its loops: the test makes their steps."""

    def __init__(
        self,
        store: Store,
        clock: ManualClock,
        *,
        retention_seconds: float | None = None,
        max_waiting_calls: int = 2_000,
        max_waiting_seconds: float = 5.0,
        one_lane: bool = False,
    ) -> None:
        self.store = store
        self.clock = clock
        self.wakeups = Wakeups()
        self.transactions = Transactions(store, self.wakeups)
        self.coalescer = Coalescer(
            self.transactions,
            one_writer=one_lane or store.one_writer,
            max_waiting_calls=max_waiting_calls,
            max_waiting_seconds=max_waiting_seconds,
        )
        self.workers = WorkerService(self.transactions, self.coalescer, clock)
        self.reports = ReportService(self.coalescer, self.workers)
        self.jobs = JobService(self.transactions, self.coalescer, self.wakeups)
        self.claims = ClaimService(
            self.coalescer, self.reports, self.workers, self.wakeups, lease_seconds=60
        )
        self.heartbeats = HeartbeatService(self.coalescer, self.workers)
        self.sync = SyncService(self.reports, self.heartbeats, self.claims, self.workers)
        self.operations = OperationService(self.coalescer)
        self.queues = QueueService(self.transactions, self.coalescer, self.wakeups)
        self.stats = StatsService(self.transactions, self.coalescer, clock)
        self.promoter = Promoter(self.transactions, self.coalescer, self.wakeups, clock)
        self.reaper = Reaper(
            self.transactions,
            self.coalescer,
            clock,
            interval_seconds=INTERVAL_SECONDS,
            retention_seconds=retention_seconds,
        )

    async def close(self) -> None:
        await self.coalescer.close(5)

    async def create(self, name: str = "resize", **wishes: Any) -> Job:
        return (await self.jobs.create(create_call(name, **wishes))).jobs[0]

    async def claim(self, worker_id: str = "w", *queues: str, **wishes: Any) -> Job:
        """A claim that finds a job."""
        (job,) = await self.claims.claim(claim_request(worker_id, *queues, **wishes))
        return job

    async def try_claim(self, request: ClaimRequest) -> Job | None:
        """What a claim of one job finds."""
        return next(iter(await self.claims.claim(request)), None)

    async def claim_patiently(
        self, request: ClaimRequest, seconds: float, gone: Future[None]
    ) -> Job | None:
        """The same, as a long poll."""
        return next(iter(await self.claims.claim_patiently(request, seconds, gone)), None)

    async def running(self, **wishes: Any) -> Job:
        """A new job, claimed at once."""
        created = await self.create(**wishes)
        job = await self.claim("w", created.queue)
        assert job.id == created.id
        return job

    async def pass_time(self, seconds: float) -> Pass:
        """Time goes by as in a healthy server: the promoter and the reaper make their steps."""
        done = Pass()
        while seconds > 0:
            step = min(seconds, INTERVAL_SECONDS)
            self.clock.move(step)
            seconds -= step
            await self.promoter.promote_once()
            done += await self.reaper.reap_once()
        return done


async def rows(store: Store, sql: str, **parameters: Any) -> Rows:
    """What a query that every store understands brings."""
    async with store.reading() as (session, _):
        return await _rows(session, sql, **parameters)


async def _rows(session: AsyncSession, sql: str, **parameters: Any) -> Rows:
    result = await session.execute(text(sql), parameters)
    return [dict(row) for row in result.mappings()]


async def run(store: Store, sql: str, **parameters: Any) -> None:
    """Write something behind the back of the services."""
    async with store.writing() as (session, _):
        await session.execute(text(sql), parameters)
        await session.commit()


async def job_row(store: Store, job_id: JobId) -> dict[str, Any]:
    """The whole row of a job, also what no answer shows."""
    (row,) = await rows(store, "SELECT * FROM jobs WHERE id = :id", id=job_id)
    return row


async def trail(store: Store, job_id: JobId) -> Rows:
    return await rows(store, "SELECT * FROM job_events WHERE job_id = :id ORDER BY id", id=job_id)


async def everything(store: Store) -> dict[str, Rows]:
    """Every row of every table: what must be the same where nothing was written."""
    async with store.reading() as (session, _):
        return {table: await _rows(session, WHOLE[table]) for table in WHOLE}


NO_CHECKS = {
    "sqlite": "PRAGMA ignore_check_constraints = 1",
    "postgresql": "ALTER TABLE jobs "
    + ", ".join(
        f"DROP CONSTRAINT jobs_{name}_check"
        for name in ("status", "token", "lease", "retries", "delayed", "finished")
    ),
}


async def allow_the_impossible(store: Store) -> None:
    """Switch the CHECKs off: what is left is the statements' own care."""
    await run(store, NO_CHECKS[store.dialect])
