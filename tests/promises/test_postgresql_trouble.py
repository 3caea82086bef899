"""Trouble on the way to PostgreSQL and in it, under load: each call is answered in time, nothing is
half done, no living worker loses its lease over it, and the server goes on by itself.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

import asyncpg
import httpx
import pytest

from tests.clusters import Cluster, running_cluster
from tests.databases import Database
from tests.promises.calls import Job, beat, code, create, ok, report
from tests.promises.load import (
    ALWAYS_CALLED,
    LEASE_SECONDS,
    SLACK_SECONDS,
    Load,
    all_kinds,
    all_were_answered,
    any_refused,
    load_on,
    nothing_is_half_done,
    refused,
    taken,
)
from tests.promises.servers import ServerProcess, http_client, real_seconds, running_server, until
from tests.promises.sessions import (
    COUNT,
    END_ALL,
    END_ONE,
    connected,
    expect_whole_pool,
    make_commits_slow,
)
from tests.promises.stalling import Network, network_to

pytestmark = [pytest.mark.process, pytest.mark.timeout(180)]

PROBED_SECONDS: Final = 2.0
"""The longest that /readyz takes."""
INTERVAL_SECONDS: Final = 0.2
POOL_SIZE: Final = 6
MOST_CONNECTIONS: Final = 40
MOST_LINES: Final = 40
"""Of the log, in the whole test: some for each cause and each loop, and not one for each call."""


@pytest.fixture(scope="module")
def cluster() -> Generator[Cluster]:
    """Every test leaves it running."""
    with running_cluster(max_connections=str(MOST_CONNECTIONS)) as cluster:
        yield cluster


@dataclass
class Stage:
    """A server, the network between it and its database, and the way of the test's own."""

    cluster: Cluster
    network: Network
    database: Database
    server: ServerProcess
    http: httpx.AsyncClient
    pool_size: int

    async def is_ready(self) -> bool:
        return (await self.http.get("/readyz")).is_success

    async def is_not_ready(self) -> bool:
        return not await self.is_ready()


@asynccontextmanager
async def staged(
    cluster: Cluster, folder: Path, database_url: str, pool_size: int = POOL_SIZE
) -> AsyncGenerator[Stage]:
    settings = {
        "postgres_pool_size": pool_size,
        "reaper_interval_seconds": INTERVAL_SECONDS,
        "log_level": "info",
    }
    async with (
        network_to(cluster.socket) as network,
        running_server(folder, database_url=network.url_of(database_url), **settings) as server,
        http_client(server.url) as http,
    ):
        yield Stage(cluster, network, Database(database_url), server, http, pool_size)


@pytest.fixture
def database_url(cluster: Cluster) -> Generator[str]:
    url = cluster.databases.empty()
    make_commits_slow(Database(url))
    yield url
    cluster.databases.drop(url)


# --- the trouble

Trouble = Callable[[Stage], AbstractAsyncContextManager[None]]


@asynccontextmanager
async def the_network_stands_still(stage: Stage) -> AsyncGenerator[None]:
    stage.network.stall()
    yield
    stage.network.flow()


@asynccontextmanager
async def the_network_lets_nobody_in(stage: Stage) -> AsyncGenerator[None]:
    await stage.network.refuse()
    stage.network.cut()
    yield
    await stage.network.admit()


@asynccontextmanager
async def the_database_is_stopped(stage: Stage) -> AsyncGenerator[None]:
    await asyncio.to_thread(stage.cluster.stop)
    yield
    await asyncio.to_thread(stage.cluster.start)


@asynccontextmanager
async def the_database_crashes(stage: Stage) -> AsyncGenerator[None]:
    await asyncio.to_thread(stage.cluster.crash)
    yield
    await asyncio.to_thread(stage.cluster.start)


@asynccontextmanager
async def others_take_every_connection(stage: Stage) -> AsyncGenerator[None]:
    """And the server's own are ended, so that it has to ask for new ones."""
    async with AsyncExitStack() as others:
        first = await others.enter_async_context(connected(stage.database.url))
        while True:
            await first.execute(END_ALL)
            try:
                await others.enter_async_context(connected(stage.database.url))
            except asyncpg.TooManyConnectionsError:
                if await first.fetchval(COUNT) == 0:
                    break
        yield


@asynccontextmanager
async def somebody_locks_the_jobs(stage: Stage) -> AsyncGenerator[None]:
    async with connected(stage.database.url) as holder, holder.transaction():
        await holder.execute("LOCK TABLE jobs")
        yield


@asynccontextmanager
async def connections_lead_to_nowhere(stage: Stage) -> AsyncGenerator[None]:
    """All that are open, from one moment to the next; new ones work."""
    stage.network.forget()
    yield
    stage.network.remember()  # or the database would keep its sessions for two hours


@asynccontextmanager
async def backends_are_ended_in_a_stream(stage: Stage) -> AsyncGenerator[None]:
    async with connected(stage.database.url) as operator:
        for _ in range(30):
            await operator.execute(END_ONE)
            await real_seconds(0.1)
        yield


class Case(NamedTuple):
    trouble: Trouble
    pool_size: int = POOL_SIZE


TOTAL: Final = {
    "the network stands still": Case(the_network_stands_still),
    "the network lets nobody in": Case(the_network_lets_nobody_in),
    "the database is stopped": Case(the_database_is_stopped),
    "the database crashes": Case(the_database_crashes),
    "others take every connection": Case(others_take_every_connection),
    "the only connection waits": Case(somebody_locks_the_jobs, pool_size=1),
}
PARTIAL: Final = {
    "connections lead to nowhere": connections_lead_to_nowhere,
    "backends are ended in a stream": backends_are_ended_in_a_stream,
}


@pytest.mark.slow
@pytest.mark.parametrize("case", TOTAL.values(), ids=TOTAL)
async def test_in_trouble_calls_are_refused_in_time_and_afterwards_all_goes_on(
    cluster: Cluster, database_url: str, tmp_path: Path, case: Case
) -> None:
    async with (
        staged(cluster, tmp_path, database_url, pool_size=case.pool_size) as stage,
        load_on(stage.http) as load,
    ):
        async with case.trouble(stage):
            await until(stage.is_not_ready)
            async with asyncio.timeout(PROBED_SECONDS + SLACK_SECONDS):
                assert not await stage.is_ready()
            assert (await stage.http.get("/livez")).is_success
            await all_kinds(load, refused, ALWAYS_CALLED)
            # In any case longer than a lease.
            await real_seconds(LEASE_SECONDS + 3 * INTERVAL_SECONDS)
        await all_goes_on(stage, load)
    all_were_answered(load)
    nothing_is_half_done(stage.database, load)
    for what in ("read", "write"):
        assert f"the store is available to {what} again" in stage.server.log


@pytest.mark.slow
@pytest.mark.parametrize("trouble", PARTIAL.values(), ids=PARTIAL)
async def test_connections_that_are_lost_under_load_cost_a_repeat_and_no_more(
    cluster: Cluster, database_url: str, tmp_path: Path, trouble: Trouble
) -> None:
    async with staged(cluster, tmp_path, database_url) as stage, load_on(stage.http) as load:
        async with trouble(stage):
            await until(lambda: any_refused(load))
        await all_goes_on(stage, load)
    all_were_answered(load)
    nothing_is_half_done(stage.database, load)


async def all_goes_on(stage: Stage, load: Load) -> None:
    """By itself. No lease was lost, and what was lost in the trouble is found again."""
    await until(stage.is_ready)
    await all_kinds(load, taken)
    # The reaper has watched for the length of a lease again.
    await real_seconds(LEASE_SECONDS + 3 * INTERVAL_SECONDS)
    load.done = True
    ok(await beat(stage.http, load.lease))
    await expect_whole_pool(stage.http, stage.database.url, stage.pool_size)
    ok(await report(stage.http, load.lease, "succeeded"))
    log = [line for line in stage.server.log.splitlines() if "compute_orchestrator" in line]
    assert len(log) < MOST_LINES, stage.server.log
    assert "Traceback" not in stage.server.log
    if "relay failed" in stage.server.log:
        assert "the other replicas can be heard again" in stage.server.log


@pytest.mark.slow
async def test_a_server_on_a_standby_starts_says_why_it_is_not_ready_and_follows_the_failover(
    cluster: Cluster, database_url: str, tmp_path: Path
) -> None:
    database = Database(database_url)
    data = Path(database.value("SHOW data_directory"))
    cluster.stop()
    (data / "standby.signal").touch()
    cluster.start()
    server = ServerProcess(tmp_path, database_url=database_url)
    try:
        await server.spawn()
        async with http_client(server.url) as http:

            async def not_ready() -> Job:
                with suppress(httpx.ConnectError):
                    answer = await http.get("/readyz")
                    assert answer.status_code == 503
                    return answer.json()
                return {}

            readiness = await until(not_ready)
            assert (readiness["status"], readiness["synchronous"]) == ("not-ready", "read-only")
            assert readiness["schema"] is not None
            ok(await http.get("/jobs"))
            refusal = await http.post("/jobs", json={"name": "work"})
            assert (refusal.status_code, code(refusal)) == (503, "store-unavailable")
            assert "read-only transaction" in server.log

            async def is_ready() -> bool:
                return (await http.get("/readyz")).is_success

            assert database.value("SELECT pg_promote()")
            await until(is_ready)
            await create(http)
    finally:
        await server.end()
