"""Promise 9: after any gap the reaper gives living workers the time of one lease to report before
it takes their jobs.
"""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from tests.databases import Database
from tests.promises.calls import Job, beat, claimed, code, create, ok, report
from tests.promises.records import actions, micros, trail_of, trails
from tests.promises.servers import (
    ServerProcess,
    http_client,
    real_seconds,
    running_server,
    until,
)
from tests.stores import SLOW_ON_POSTGRESQL

pytestmark = [pytest.mark.process, pytest.mark.timeout(120)]

SECOND = 1_000_000
WATCH = "SELECT since FROM watch"
LAST_PASS = "SELECT last_pass_at FROM watch"  # noqa: S105 - a pass of the reaper

Gap = Callable[[ServerProcess, httpx.AsyncClient, list[Job], float], Awaitable[None]]


async def frozen(
    server: ServerProcess, _http: httpx.AsyncClient, _leases: list[Job], seconds: float
) -> None:
    server.freeze()
    await real_seconds(seconds)
    server.thaw()


async def stopped(
    server: ServerProcess, _http: httpx.AsyncClient, _leases: list[Job], seconds: float
) -> None:
    assert await server.stop() == 0
    await real_seconds(seconds)
    await server.start()


async def killed(
    server: ServerProcess, _http: httpx.AsyncClient, _leases: list[Job], seconds: float
) -> None:
    await server.kill()
    await real_seconds(seconds)
    await server.start()


async def locked_out(
    server: ServerProcess, http: httpx.AsyncClient, leases: list[Job], seconds: float
) -> None:
    """Another process has the store: nothing can be written, and heartbeats fail together."""
    with server.database.locked():
        for answer in await asyncio.gather(*(beat(http, lease) for lease in leases)):
            assert (answer.status_code, code(answer)) == (503, "store-unavailable")
            assert int(answer.headers["Retry-After"]) > 0
        await real_seconds(seconds)


class Case(NamedTuple):
    gap: Gap
    lease_seconds: float
    gap_seconds: float
    settings: dict[str, Any]


CASES = {
    "frozen": Case(frozen, 2, 2.5, {}),
    "stopped": Case(stopped, 2, 2.5, {}),
    "killed": Case(killed, 2, 2.5, {}),
    # The heartbeats alone take longer than two leases: they wait five seconds for the lock.
    "locked out": Case(locked_out, 2, 0.1, {}),
    # Leases of ten seconds, and the default interval of two.
    "frozen for long": Case(frozen, 10, 21, {"reaper_interval_seconds": 2}),
}
SLOW = ("stopped", "locked out", "frozen for long")
PARAMETERS = [
    pytest.param(case, id=name, marks=[pytest.mark.slow] if name in SLOW else [])
    for name, case in CASES.items()
]


@pytest.mark.parametrize("case", PARAMETERS)
@SLOW_ON_POSTGRESQL
async def test_after_a_gap_living_workers_keep_their_jobs_and_dead_ones_do_not(
    tmp_path: Path, store_url: str, case: Case
) -> None:
    async with (
        running_server(tmp_path, database_url=store_url, **case.settings) as server,
        http_client(server.url) as http,
    ):
        for _ in range(4):
            await create(http)
        dead, *living = [
            await claimed(http, f"w{n}", lease_seconds=case.lease_seconds) for n in range(4)
        ]
        for lease in living:
            ok(await beat(http, lease))
        await until(lambda: watched(server.database))
        await case.gap(server, http, living[:2], case.gap_seconds)
        over = max(micros(lease["lease_expires_at"]) for lease in (dead, *living)) + SECOND // 10

        async def the_reaper_passed() -> bool:
            return server.database.value(LAST_PASS) > over

        async def the_dead_ones_is_taken() -> bool:
            for lease in living:
                ok(await beat(http, lease))
            return "lose" in actions(trail_of(server.database, dead["id"]))

        # Every lease has run out, and the reaper has seen it, before the first sign of life.
        await until(the_reaper_passed)
        since = server.database.value(WATCH)
        await until(the_dead_ones_is_taken)
        for lease in living:
            ok(await report(http, lease, "succeeded"))

        found = trails(server.database)
        for lease in living:
            assert actions(found[lease["id"]]) == ["create", "claim", "succeed"]
        (lost,) = (event for event in found[dead["id"]] if event.action == "lose")
        assert lost.at >= since + case.lease_seconds * SECOND


async def test_without_a_gap_a_dead_workers_job_is_taken_within_two_intervals(
    tmp_path: Path, store_url: str
) -> None:
    interval = 0.5
    settings: dict[str, Any] = {"reaper_interval_seconds": interval, "database_url": store_url}
    async with running_server(tmp_path, **settings) as server, http_client(server.url) as http:
        await create(http, queue="living")
        living = await claimed(http, queues=["living"], lease_seconds=60)
        ok(await beat(http, living))

        async def one_dies() -> bool:
            """Whether the watch went on without a gap: a busy machine may have made one."""
            job = await create(http, max_retries=0)
            await until(lambda: watched(server.database))
            lease = await claimed(http, lease_seconds=2)
            since = server.database.value(WATCH)

            async def taken() -> bool:
                return "lose" in actions(trail_of(server.database, job["id"]))

            await until(taken)
            late = trail_of(server.database, job["id"])[-1].at - micros(lease["lease_expires_at"])
            assert late >= 0
            no_gap = server.database.value(WATCH) == since
            assert late <= 2 * interval * SECOND or not no_gap
            return no_gap

        await until(one_dies, 60)


async def watched(database: Database) -> bool:
    """Whether the reaper has begun to watch."""
    return database.value("SELECT count(*) FROM watch") == 1
