"""Clients that reset their connection, at any byte of a request and while its commit runs, leave
nothing open in PostgreSQL: no transaction, no lost connection of the pool.
"""

import asyncio
import random
import socket
import struct
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import httpx
import pytest

from tests.databases import Database
from tests.promises.calls import Job, claimed, create, raw
from tests.promises.records import COUNTED, TOLD, faults_of_trails
from tests.promises.servers import (
    LOCAL,
    ServerProcess,
    http_client,
    real_seconds,
    running_server,
    until,
)
from tests.promises.sessions import OURS, connected, expect_whole_pool, make_commits_slow
from tests.stores import empty_postgresql

pytestmark = [pytest.mark.process, pytest.mark.slow, pytest.mark.timeout(180)]

POOL_SIZE: Final = 6
RESETS: Final = 10_000
AT_ONCE: Final = 50
LONGEST_SECONDS: Final = 0.02
"""In which most requests are answered."""
RESET: Final = struct.pack("ii", 1, 0)


@pytest.fixture
def database(request: pytest.FixtureRequest) -> Database:
    return Database(empty_postgresql(request))


@pytest.fixture
async def server(database: Database, tmp_path: Path) -> AsyncGenerator[ServerProcess]:
    make_commits_slow(database)
    settings = {"postgres_pool_size": POOL_SIZE, "lease_seconds": 1}
    async with running_server(tmp_path, database_url=database.url, **settings) as server:
        yield server


@pytest.fixture
async def http(server: ServerProcess) -> AsyncGenerator[httpx.AsyncClient]:
    async with http_client(server.url) as http:
        yield http


def requests_of_all_kinds(lease: Job) -> Sequence[bytes]:
    known = {"worker_id": lease["locked_by"], "lease_token": lease["lease_token"]}
    wishes = {"worker_id": "gone", "lease_seconds": 1}
    path = f"/jobs/{lease['id']}"
    return (
        raw("POST", "/jobs", {"name": "work", "tags": ["a", "b"], "max_retries": 1000}),
        raw("POST", "/jobs/claim", wishes),
        raw("POST", "/jobs/claim", {**wishes, "request_id": "again"}),
        raw("POST", "/jobs/claim", {**wishes, "queues": ["empty"], "wait_seconds": 5}),
        raw("POST", f"{path}/heartbeat", {**known, "progress": 1}),
        raw("PATCH", f"{path}/status", {"status": "succeeded", **known}),
        f"GET {path} HTTP/1.1\r\nHost: {LOCAL}\r\n\r\n".encode(),
        f"GET /jobs HTTP/1.1\r\nHost: {LOCAL}\r\n\r\n".encode(),
        f"GET /stats HTTP/1.1\r\nHost: {LOCAL}\r\n\r\n".encode(),
    )


async def reset_at_random(port: int, request: bytes, chance: random.Random) -> None:
    """Half of all requests are cut at any byte; the others arrive, and at any moment until after
    their answer the client is gone.
    """
    reader, writer = await asyncio.open_connection(LOCAL, port)
    kept: socket.socket = writer.get_extra_info("socket")
    kept.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    whole = chance.random() < 0.5
    with suppress(ConnectionError):
        writer.write(request if whole else request[: chance.randrange(len(request))])
        await writer.drain()
        if whole and chance.random() < 0.2:
            await reader.read(1)
        elif whole:
            await real_seconds(chance.uniform(0, LONGEST_SECONDS))
    writer.transport.abort()


async def test_ten_thousand_requests_that_are_reset_leave_nothing_open(
    server: ServerProcess, http: httpx.AsyncClient, database: Database
) -> None:
    chance = random.Random(8)  # noqa: S311 - the same cuts in each run
    await create(http, queue="held")
    lease = await claimed(http, "holder", queues=["held"], lease_seconds=600)
    requests = chance.choices(requests_of_all_kinds(lease), k=RESETS)
    waiting = iter(requests)

    async def clients() -> None:
        for request in waiting:
            await reset_at_random(server.port, request, chance)

    await asyncio.gather(*(clients() for _ in range(AT_ONCE)))
    await next_writes_are_seen_at_once(http, database)
    await expect_whole_pool(http, database.url, POOL_SIZE)

    async def nobody_holds_one() -> bool:
        """Leases that were given to nobody are handed back or run out."""
        return database.value("SELECT count(*) FROM jobs WHERE locked_by = 'gone'") == 0

    await until(nobody_holds_one)
    assert faults_of_trails(database) == []
    assert database.rows(COUNTED) == database.rows(TOLD)
    assert server.log.count("\n") < 10, server.log


async def next_writes_are_seen_at_once(http: httpx.AsyncClient, database: Database) -> None:
    """A commit that only released a savepoint of a transaction left open would not be seen."""
    async with connected(database.url) as other:
        assert await other.fetchval(f"SELECT count(*) = 0 {OURS} AND state LIKE 'idle in%'")
        for _ in range(100):
            job = await create(http, queue="after")
            assert await other.fetchval("SELECT status FROM jobs WHERE id = $1", job["id"])
