"""A thousand workers that wait for work cost the server next to nothing: no connection to the
database each, no question of their own while there is nothing, and one job wakes one of them.
"""

import asyncio
import json
import logging
import signal
import time
from asyncio import StreamReader
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final

import httpx
import psutil
import pytest

from tests.databases import Database
from tests.promises.calls import Job, claim, create, ok, raw
from tests.promises.records import micros
from tests.promises.servers import (
    ServerProcess,
    connected,
    http_client,
    real_seconds,
    running_server,
    until,
)
from tests.promises.sessions import COUNT
from tests.stores import empty_postgresql

logger = logging.getLogger(__name__)

pytestmark = [pytest.mark.process, pytest.mark.slow, pytest.mark.timeout(120)]

WAITERS: Final = 1_000
POOL_SIZE: Final = 4
IDLE_SECONDS: Final = 10.0
MOST_A_SECOND: Final = 10
"""Transactions. The loops of a server make two or three together, for however many waiters."""
IDLE_MICROS: Final = 9_000_000
TOLD_SECONDS: Final = 11.0
"""Until the database's counters know what was done before: a connection at rest tells them late."""
JOBS: Final = 10
ANSWERED_SECONDS: Final = 5.0
TRANSACTIONS: Final = """
    SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = current_database()
"""

Waiter = asyncio.Task[tuple[int, Job | None]]


@asynccontextmanager
async def waiting(server: ServerProcess, http: httpx.AsyncClient) -> AsyncGenerator[list[Waiter]]:
    """So many claims that have found nothing, each on a connection of its own."""
    async with AsyncExitStack() as stack:
        waiters: list[Waiter] = []
        for number in range(WAITERS):
            reader, writer = await stack.enter_async_context(connected(server.port))
            body = {"worker_id": f"waiter-{number}", "wait_seconds": 60}
            writer.write(raw("POST", "/jobs/claim", body))
            waiters.append(asyncio.create_task(answer(reader)))

        async def all_came() -> bool:
            return len(await seen_since(http, 0)) == WAITERS

        await until(all_came)
        # Carried after all of them.
        assert await claim(http, "waiter-0", queues=["other"]) is None
        try:
            yield waiters
        finally:
            for waiter in waiters:
                waiter.cancel()


async def answer(reader: StreamReader) -> tuple[int, Job | None]:
    head = await reader.readuntil(b"\r\n\r\n")
    status = int(head.split()[1])
    if status != 200:
        return status, None
    length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
    return status, json.loads(await reader.readexactly(length))


async def seen_since(http: httpx.AsyncClient, moment: int) -> set[str]:
    """Which workers asked after it."""
    workers = ok(await http.get("/workers"))["workers"]
    return {it["worker_id"] for it in workers if micros(it["last_seen_at"]) > moment}


async def test_a_thousand_idle_waiters_cost_next_to_nothing(
    request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    database = Database(empty_postgresql(request))
    settings = {"postgres_pool_size": POOL_SIZE, "reaper_interval_seconds": 2}
    async with (
        running_server(tmp_path, database_url=database.url, **settings) as server,
        http_client(server.url) as http,
        waiting(server, http) as waiters,
    ):
        await real_seconds(TOLD_SECONDS)
        process, done = psutil.Process(server.pid), database.value(TRANSACTIONS)
        worked = process.cpu_times()
        await real_seconds(IDLE_SECONDS)
        transactions, sessions = database.value(TRANSACTIONS) - done, database.value(COUNT)
        logger.info(
            "%d waiters, %.0f s: %d transactions, %d sessions, %.2f s of CPU, %.0f MB",
            *(WAITERS, IDLE_SECONDS, transactions, sessions),
            sum(process.cpu_times()[:2]) - sum(worked[:2]),
            process.memory_info().rss / 1e6,
        )
        assert transactions < MOST_A_SECOND * IDLE_SECONDS
        assert sessions <= POOL_SIZE + 1

        await one_job_wakes_one(http, waiters)

        left = [waiter for waiter in waiters if not waiter.done()]
        assert len(left) == WAITERS - JOBS
        server.send(signal.SIGTERM)
        told = time.monotonic()
        async with asyncio.timeout(ANSWERED_SECONDS):
            assert [await waiter for waiter in left] == [(204, None)] * len(left)
        assert await server.wait() == 0
        logger.info("SIGTERM: all answered and ended in %.2f s", time.monotonic() - told)


async def one_job_wakes_one(http: httpx.AsyncClient, waiters: list[Waiter]) -> None:
    jobs: list[Job] = []
    for number in range(1, JOBS + 1):
        jobs.append(await create(http))

        async def one_has_it(number: int = number) -> bool:
            return sum(waiter.done() for waiter in waiters) == number

        await until(one_has_it)
    claimed = [job for waiter in waiters if waiter.done() and (job := waiter.result()[1])]
    assert {job["id"] for job in claimed} == {job["id"] for job in jobs}
    # Since they came nobody had asked.
    woken = await seen_since(http, micros(jobs[0]["created_at"]) - IDLE_MICROS)
    assert {job["locked_by"] for job in claimed} <= woken
    # The slow poll may see a job in the moment before its claim, and wake one more for it.
    assert len(woken) <= JOBS + 2
