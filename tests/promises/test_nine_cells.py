"""The nine cells of the public harness hardbyte/postgresql-job-queue-benchmarking (`docs/method.md`
there), shortened: what goes wrong around a queue in PostgreSQL, and whether all comes back by
itself afterwards.

In none of them is anything lost, and nine tenths of what was finished in a second before are
finished again after (`cells.py`). There a queue lives in its workers' processes; here servers
stand between, and who kills those is `test_chaos.py`.

The rates are in the log. It takes four minutes:

    uv run pytest -n 0 -m slow --log-cli-level=info tests/promises/test_nine_cells.py
"""

import asyncio
import logging
from asyncio import TaskGroup
from collections.abc import Generator
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Final, NamedTuple

import asyncpg
import pytest

from tests.clusters import Cluster, running_cluster
from tests.promises.cells import (
    LEASES_ARE_OVER_SECONDS,
    RATE,
    WARM_UP_SECONDS,
    Cell,
    Disturbance,
    drained,
    nothing_is_lost,
    rates_of,
    refusals,
    running_cell,
    span,
)
from tests.promises.evidence import Outage
from tests.promises.history import wall_clock
from tests.promises.servers import real_seconds
from tests.promises.sessions import connected

pytestmark = [pytest.mark.process, pytest.mark.slow, pytest.mark.timeout(400)]

logger = logging.getLogger(__name__)

DISTURBED_SECONDS: Final = 5
MEASURED_SECONDS: Final = 3
STRIKES_PER_SECOND: Final = 5
DEAD_ROWS: Final = 3600 * RATE
READERS: Final = 4
READER_PAUSE_SECONDS: Final = 0.1
BURST: Final = 10 * RATE

END_BUSY: Final = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
     WHERE datname = current_database() AND pid <> pg_backend_pid()
       AND state IN ('active', 'idle in transaction')
"""
# It has a number of its own, as if it had written, and a snapshot: each alone would do.
PIN: Final = "SELECT pg_current_xact_id(), count(*) FROM jobs"
# Made and deleted in one transaction, nobody ever sees them; but they stand first in line, so that
# every claim has to walk over them.
INSERT_FIRST_IN_LINE: Final = """
    INSERT INTO jobs (queue, name, tags, priority, status, delayed, attempt, retry_count,
                      max_retries, release_count, run_at, retry_base_seconds, retry_factor,
                      retry_max_seconds, retry_jitter, cancel_requested, created_at, updated_at)
    SELECT 'default', 'dead', '[]', 0, 'queued', 0, 0, 0,
           0, 0, now() - interval '1 hour', 1, 2,
           3600, 0.2, 0, now(), now()
      FROM generate_series(1, $1)
"""
DELETE_THEM: Final = "DELETE FROM jobs WHERE name = 'dead'"
DEAD: Final = "SELECT n_dead_tup FROM pg_stat_user_tables WHERE relname = 'jobs'"
ANALYSIS: Final = """
    SELECT jobs.status, job_events.action, count(*), avg(jobs.finished_at - jobs.created_at),
           percentile_cont(0.99) WITHIN GROUP (ORDER BY jobs.finished_at - jobs.locked_at)
      FROM jobs JOIN job_events ON job_events.job_id = jobs.id
     GROUP BY 1, 2 ORDER BY 3 DESC
"""


@pytest.fixture(scope="module")
def cluster() -> Generator[Cluster]:
    """Every cell leaves it running. Autovacuum looks once a second, since by default it looks once
    a minute: a phase has some of its visits, as a phase of the harness has.
    """
    with running_cluster(autovacuum_naptime="1s") as cluster:
        yield cluster


@pytest.fixture
def database_url(cluster: Cluster) -> Generator[str]:
    url = cluster.databases.empty()
    yield url
    cluster.databases.drop(url)


# --- something breaks


async def workers_are_killed(cell: Cell) -> None:
    """A quarter of them at once. They are started again when their leases have run out."""
    await cell.workers[0].kill()
    await real_seconds(LEASES_ARE_OVER_SECONDS)
    await cell.workers[0].start()
    await real_seconds(DISTURBED_SECONDS - LEASES_ARE_OVER_SECONDS)


async def workers_are_killed_repeatedly(cell: Cell) -> None:
    """And started again at once. It is over when the last leases have run out."""
    for _ in range(DISTURBED_SECONDS):
        await cell.workers[0].kill()
        await cell.workers[0].start()
        await real_seconds(1)
    await real_seconds(LEASES_ARE_OVER_SECONDS - 1)


async def postgresql_is_restarted(cell: Cell) -> None:
    await asyncio.to_thread(cell.cluster.stop)
    since = wall_clock()
    await real_seconds(DISTURBED_SECONDS / 2)
    cell.outages.append(Outage(since, wall_clock()))
    await asyncio.to_thread(cell.cluster.start)
    await real_seconds(DISTURBED_SECONDS / 2)


async def backends_are_ended_in_a_stream(cell: Cell) -> None:
    """Whatever is at work, again and again."""
    ended = 0
    async with connected(cell.database.url) as operator:
        for _ in range(DISTURBED_SECONDS * STRIKES_PER_SECOND):
            ended += len(await operator.fetch(END_BUSY))
            await real_seconds(1 / STRIKES_PER_SECOND)
    logger.info("%s backends were ended", ended)
    assert ended


async def idle_connections_take_every_place(cell: Cell) -> None:
    """The servers are left with what they have open."""
    async with AsyncExitStack() as idle:
        taken = 0
        with suppress(asyncpg.TooManyConnectionsError):
            while True:
                await idle.enter_async_context(connected(cell.database.url))
                taken += 1
        logger.info("%s idle connections", taken)
        await real_seconds(DISTURBED_SECONDS)


# --- something is in the way


async def leave_dead_rows(cell: Cell) -> None:
    """As many as an hour of the load leaves. Those of a cell of seconds would trouble nobody."""
    async with connected(cell.database.url) as hand, hand.transaction():
        await hand.execute(INSERT_FIRST_IN_LINE, DEAD_ROWS)
        await hand.execute(DELETE_THEM)


def expect_dead_rows(cell: Cell) -> None:
    """Somebody may still see them: autovacuum could take none of them away."""
    dead = cell.database.value(DEAD)
    logger.info("%s dead rows", dead)
    assert dead > DEAD_ROWS / 2, "an estimate"


async def an_idle_transaction_pins_the_horizon(cell: Cell) -> None:
    async with (
        connected(cell.database.url) as holder,
        holder.transaction(isolation="repeatable_read"),
    ):
        await holder.execute(PIN)
        await leave_dead_rows(cell)
        await real_seconds(DISTURBED_SECONDS)
        expect_dead_rows(cell)


async def four_readers_overlap(cell: Cell) -> None:
    """Each asks again and again, in one snapshot."""
    answers = 0

    async def read(reader: asyncpg.Connection) -> None:
        nonlocal answers
        while True:
            await reader.fetch(ANALYSIS)
            answers += 1
            await real_seconds(READER_PAUSE_SECONDS)

    async with AsyncExitStack() as stack:
        readers = [
            await stack.enter_async_context(connected(cell.database.url)) for _ in range(READERS)
        ]
        for reader in readers:
            await stack.enter_async_context(reader.transaction(isolation="repeatable_read"))
            await reader.fetch(ANALYSIS)
        await leave_dead_rows(cell)
        with suppress(TimeoutError):
            async with asyncio.timeout(DISTURBED_SECONDS), TaskGroup() as group:
                for reader in readers:
                    group.create_task(read(reader))
        expect_dead_rows(cell)
    logger.info("%s answers to the readers", answers)
    assert answers > READERS


# --- too much comes


async def half_as_much_again_as_it_bears_comes(cell: Cell) -> None:
    """It bears what it finishes while there is always something that waits."""
    enough = cell.hire("enough", 64, depth=200)
    await enough.start()
    await real_seconds(WARM_UP_SECONDS)
    bearable = cell.finished(await span(real_seconds(MEASURED_SECONDS)))
    await enough.stop()
    waiting = cell.waiting()
    more = cell.hire("more", 128, rate=max(1.5 * bearable - RATE, 0.5 * bearable))
    await more.start()
    finished = cell.finished(await span(real_seconds(DISTURBED_SECONDS)))
    await more.stop()
    grown = cell.waiting() - waiting
    logger.info("bears %.0f jobs/s, finished %.0f of 1.5 times that", bearable, finished)
    logger.info("%s more wait than before", grown)
    assert grown > 0


async def a_burst_comes(cell: Cell) -> None:
    """What else comes in ten seconds, at once. Its drain is part of the recovery."""
    burst = cell.hire("burst", 64, rate=1000 * RATE, most=BURST)
    await burst.start()
    await burst.finish()
    logger.info("%s jobs wait", cell.waiting())


class Case(NamedTuple):
    disturbance: Disturbance
    max_waiting_calls: int = 2_000


CELLS: Final = {
    "workers are killed": Case(workers_are_killed),
    "workers are killed repeatedly": Case(workers_are_killed_repeatedly),
    "PostgreSQL is restarted": Case(postgresql_is_restarted),
    "backends are ended in a stream": Case(backends_are_ended_in_a_stream),
    "idle connections take every place": Case(idle_connections_take_every_place),
    "an idle transaction pins the horizon": Case(an_idle_transaction_pins_the_horizon),
    "four readers overlap": Case(four_readers_overlap),
    # A server with few places for calls that wait refuses some of this load.
    "half as much again as it bears comes": Case(half_as_much_again_as_it_bears_comes, 20),
    "a burst comes": Case(a_burst_comes),
}


@pytest.mark.parametrize("case", CELLS.values(), ids=CELLS)
async def test_nothing_is_lost_and_afterwards_as_much_is_finished_as_before(
    cluster: Cluster, database_url: str, tmp_path: Path, case: Case
) -> None:
    settings = {"max_waiting_calls": case.max_waiting_calls}
    async with running_cell(cluster, database_url, tmp_path, **settings) as cell:
        rates = await rates_of(cell, case.disturbance)
        evidence = await drained(cell)
    refused = refusals(evidence)
    logger.info("%s", rates)
    logger.info("%s of %s calls were refused", len(refused), len(evidence.calls))
    nothing_is_lost(evidence)
    assert rates.enough, rates
