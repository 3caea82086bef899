"""What the nine cells have in common: two servers on one durable PostgreSQL, producers and workers,
and the phases before, during and after a disturbance.

The load is a steady rate, far below what the servers bear. So nine tenths of the rate before say
that whatever was held up is found again and that all that comes is done again, and not how fast a
machine is that others use at the same time. They may still slow down one phase and not the other:
the recovery has three parts, and is over with the first in which enough is done.

Workers and producers are processes (`cell_worker.py`), and each of their calls is held against
what stands in the database (`history_checker.py`).
"""

import asyncio
import json
import logging
import signal
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from tests.clusters import Cluster
from tests.databases import Database
from tests.promises.cell_worker import LEASE_SECONDS, Plan
from tests.promises.evidence import Evidence, Outage, gathered
from tests.promises.history import Call, wall_clock
from tests.promises.history_checker import faults
from tests.promises.servers import ServerProcess, real_seconds, until

if TYPE_CHECKING:
    from asyncio.subprocess import Process

logger = logging.getLogger(__name__)

SERVERS, CREWS, WORKERS, PRODUCERS = 2, 4, 12, 24
"""Twelve workers in each of four processes; the producers share one."""
RATE: Final = 100
"""Jobs that come in a second, in every phase."""
WARM_UP_SECONDS, BEFORE_SECONDS, RECOVERY_SECONDS = 2, 5, 5
RECOVERY_PARTS: Final = 3
GOOD_ENOUGH: Final = 0.9
DRAIN_SECONDS: Final = 120
LEASES_ARE_OVER_SECONDS: Final = LEASE_SECONDS + 0.5
"""After a kill: the reaper, which looks five times a second, has taken what was leased."""

ROOT: Final = Path(__file__).parents[2]
CREW: Final = (sys.executable, "-S", "-m", "tests.promises.cell_worker")

FINISHED: Final = """
    SELECT count(*) FROM job_events WHERE action = 'succeed' AND at >= ? AND at < ?
"""
WAITING: Final = "SELECT count(*) FROM jobs WHERE status = 'queued'"
UNFINISHED: Final = "SELECT id FROM jobs WHERE finished_at IS NULL LIMIT 1"
# For a moment, between two statements, every transaction is in this state.
LEFT_OPEN: Final = """
    SELECT application_name, query FROM pg_stat_activity
     WHERE datname = current_database() AND state LIKE 'idle in transaction%'
       AND state_change < clock_timestamp() - interval '1 second'
"""


class Span(NamedTuple):
    """From one time to another: microseconds, on the clock that the database reads too."""

    since: int
    until: int

    @property
    def seconds(self) -> float:
        return (self.until - self.since) / 1e6


async def span(phase: Awaitable[None]) -> Span:
    since = wall_clock()
    await phase
    return Span(since, wall_clock())


class Crew:
    """A process of workers or of producers. At each start they have new names."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._log = Path(plan.folder) / "crews.log"
        self._starts = 0
        self._process: Process | None = None

    async def start(self) -> None:
        self._starts += 1
        plan = self._plan._replace(name=f"{self._plan.name}.{self._starts}")
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *CREW, json.dumps(plan._asdict()), cwd=ROOT, stdout=log, stderr=log
            )

    async def kill(self) -> None:
        """kill -9."""
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        assert await self._process.wait() == -signal.SIGKILL, self._log.read_text()

    async def stop(self) -> None:
        """SIGTERM."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        await self.finish()

    async def finish(self) -> None:
        """Gone, once all that it began is answered."""
        assert self._process is not None
        async with asyncio.timeout(DRAIN_SECONDS):
            assert await self._process.wait() == 0, self._log.read_text()

    async def end(self) -> None:
        """At the end of a test, in whatever state it is."""
        if self._process is not None and self._process.returncode is None:
            await self.kill()


@dataclass
class Cell:
    """Servers, workers and producers at work. `outages` is for who takes the database away."""

    cluster: Cluster
    database: Database
    history: Path
    hire: Callable[..., Crew]
    """A crew that is yet to be started; the rest of its plan by name."""
    workers: list[Crew]
    producers: Crew
    outages: list[Outage] = field(default_factory=list[Outage])

    def finished(self, span: Span) -> float:
        """Jobs a second."""
        since, till = (datetime.fromtimestamp(at / 1e6, UTC) for at in span)
        return self.database.value(FINISHED, since, till) / span.seconds

    def waiting(self) -> int:
        return self.database.value(WAITING)


Disturbance = Callable[[Cell], Awaitable[None]]


@asynccontextmanager
async def running_cell(
    cluster: Cluster, url: str, folder: Path, **settings: Any
) -> AsyncGenerator[Cell]:
    async with AsyncExitStack() as stack:
        servers = [
            ServerProcess(folder, fresh=True, database_url=url, **settings) for _ in range(SERVERS)
        ]
        for server in servers:
            stack.push_async_callback(server.end)
        await asyncio.gather(*(server.start() for server in servers))
        history = folder / "history"
        history.mkdir()

        def hire(name: str, size: int, **more: Any) -> Crew:
            ports = [server.port for server in servers]
            crew = Crew(Plan(name, str(history), ports, size, **more))
            stack.push_async_callback(crew.end)
            return crew

        workers = [hire(f"work-{number}", WORKERS) for number in range(CREWS)]
        producers = hire("produce", PRODUCERS, rate=RATE)
        for crew in (*workers, producers):
            await crew.start()
        yield Cell(cluster, Database(url), history, hire, workers, producers)


class Rates(NamedTuple):
    """Jobs finished in a second; in the recovery, in each of its parts."""

    before: float
    during: float
    recovery: list[float]

    @property
    def share(self) -> float:
        """Of the rate before, after. What was made up for before is not asked for again."""
        return self.recovery[-1] / min(self.before, RATE)

    @property
    def enough(self) -> bool:
        return bool(self.recovery) and self.share >= GOOD_ENOUGH

    def __str__(self) -> str:
        recovery = ", ".join(f"{rate:.0f}" for rate in self.recovery)
        return (
            f"{self.before:.0f} jobs/s before, {self.during:.0f} during, {recovery} after:"
            f" {self.share:.2f}"
        )


async def rates_of(cell: Cell, disturbance: Disturbance) -> Rates:
    await real_seconds(WARM_UP_SECONDS)
    before = cell.finished(await span(real_seconds(BEFORE_SECONDS)))
    during = cell.finished(await span(disturbance(cell)))
    rates = Rates(before, during, [])
    while not rates.enough and len(rates.recovery) < RECOVERY_PARTS:
        rates.recovery.append(cell.finished(await span(real_seconds(RECOVERY_SECONDS))))
    return rates


async def drained(cell: Cell) -> Evidence:
    """Nothing more comes, and all that came is done."""
    await cell.producers.stop()

    async def nothing_left() -> bool:
        return not cell.database.rows(UNFINISHED)

    await until(nothing_left, DRAIN_SECONDS)
    await asyncio.gather(*(crew.stop() for crew in cell.workers))
    assert cell.database.rows(LEFT_OPEN) == []
    return gathered(cell.history, cell.database, cell.outages)


def nothing_is_lost(evidence: Evidence) -> None:
    """And each job succeeded once: in a path nothing leads on from there."""
    assert faults(evidence) == []
    assert {job.status for job in evidence.jobs.values()} == {"succeeded"}


def refusals(evidence: Evidence) -> list[Call]:
    """Each says when to come again."""
    refused = [call for call in evidence.calls if call.status == 503]
    assert [call for call in refused if int(call.answer["retry_after"] or 0) < 1] == []
    return refused
