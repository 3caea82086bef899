"""A slow or vanished client never leaves a transaction open: what was cut in mid-flight took effect
wholly or not at all, and the server works on.
"""

import asyncio
import json
import random
from asyncio import StreamReader, StreamWriter
from collections.abc import Iterator
from contextlib import AsyncExitStack, suppress
from typing import Any, Final, NamedTuple

import httpx
import pytest

from tests.databases import Database
from tests.promises.calls import Job, claim, create, ok, raw, report
from tests.promises.records import COUNTED, TOLD, faults_of_trails
from tests.promises.servers import ServerProcess, connected, until

pytestmark = [
    pytest.mark.process,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.timeout(120),
]

CUTS: Final = 50
"""How often each kind of request is cut."""
AT_ONCE: Final = 25


@pytest.fixture(scope="module")
def server_settings() -> dict[str, Any]:
    return {"receive_timeout_seconds": 1, "lease_seconds": 1}


class Request(NamedTuple):
    """What is sent, and how many bytes of it before the client is gone; all is None."""

    raw: bytes
    cut: int | None
    label: str = ""


async def vanish(port: int, request: Request, chance: random.Random) -> None:
    """Send a part, or all and perhaps see the first byte of the answer; then be gone."""
    async with connected(port) as (reader, writer):
        with suppress(ConnectionError):
            await _speak(reader, writer, request, chance)
        if chance.random() < 0.5:
            writer.transport.abort()  # a reset, and no end of a stream


async def _speak(
    reader: StreamReader, writer: StreamWriter, request: Request, chance: random.Random
) -> None:
    writer.write(request.raw[: request.cut])
    await writer.drain()
    if request.cut is None and chance.random() < 0.5:
        await reader.read(1)


def cuts(request: bytes, label: str, chance: random.Random) -> Request:
    """Half of all requests arrive whole, half are cut at any byte."""
    whole = chance.random() < 0.5
    return Request(request, None if whole else chance.randrange(len(request)), label)


async def requests_of_all_kinds(
    http: httpx.AsyncClient, queue: str, chance: random.Random
) -> list[Request]:
    for _ in range(3 * CUTS):
        await create(http, queue=queue, max_retries=1000, retry={"base_seconds": 0})
    return [
        request
        for n in range(CUTS)
        for request in (
            cuts(_create(queue, f"create {n}"), f"create {n}", chance),
            cuts(_claim(queue, {}), "", chance),
            cuts(_claim(queue, {"request_id": f"request {n}"}), "", chance),
            cuts(await _report(http, queue), "", chance),
        )
    ]


def _create(queue: str, label: str) -> bytes:
    body = {"name": "work", "queue": f"{queue} made", "payload": label, "tags": ["a", "b"]}
    return raw("POST", "/jobs", body)


def _claim(queue: str, more: Job) -> bytes:
    return raw("POST", "/jobs/claim", {"worker_id": "gone", "queues": [queue], **more})


async def _report(http: httpx.AsyncClient, queue: str) -> bytes:
    lease = await claim(http, "there", queues=[queue], lease_seconds=60)
    assert lease is not None
    known = {"worker_id": "there", "lease_token": lease["lease_token"]}
    return raw("PATCH", f"/jobs/{lease['id']}/status", {"status": "succeeded", **known})


async def test_requests_cut_anywhere_take_effect_wholly_or_not_at_all(
    server: ServerProcess, http: httpx.AsyncClient, database: Database, queue: str
) -> None:
    chance = random.Random(10)  # noqa: S311 - the same cuts in each run
    requests = await requests_of_all_kinds(http, queue, chance)
    chance.shuffle(requests)
    for batch in in_batches(requests):
        await asyncio.gather(*(vanish(server.port, request, chance) for request in batch))

    # Leases that were given to nobody are handed back or run out.
    async def nobody_holds_one() -> bool:
        sql = "SELECT count(*) FROM jobs WHERE status = 'running' AND locked_by = 'gone'"
        return database.value(sql) == 0

    await until(nobody_holds_one)
    assert faults_of_trails(database) == []
    assert database.rows(COUNTED) == database.rows(TOLD)
    made = database.value("SELECT count(*) FROM jobs WHERE CAST(tags AS text) <> '[]'")
    assert database.value("SELECT count(*) FROM job_tags") == 2 * made

    whole = {request.label for request in requests if request.label and request.cut is None}
    sql = "SELECT payload FROM jobs WHERE queue = ?"
    labels = [json.loads(row["payload"]) for row in database.rows(sql, f"{queue} made")]
    assert len(labels) == len(set(labels))
    assert labels
    assert set(labels) <= whole

    await it_works_on(http, database, queue)


def in_batches(requests: list[Request]) -> Iterator[list[Request]]:
    for start in range(0, len(requests), AT_ONCE):
        yield requests[start : start + AT_ONCE]


async def it_works_on(http: httpx.AsyncClient, database: Database, queue: str) -> None:
    """A hundred acknowledged writes are seen by another connection, which can write as well."""
    after = f"{queue} after"
    created = await asyncio.gather(*(create(http, queue=after) for _ in range(100)))
    seen = database.rows("SELECT id FROM jobs WHERE queue = ?", after)
    assert {row["id"] for row in seen} == {job["id"] for job in created}
    with database.locked():
        pass  # which waits for every transaction that was left open
    lease = await claim(http, queues=[after])
    assert lease is not None
    ok(await report(http, lease, "succeeded"))


async def test_clients_that_send_half_and_wait_hold_nobody_up(
    server: ServerProcess, http: httpx.AsyncClient, database: Database, queue: str
) -> None:
    half = _create(queue, "half")[:-5]
    async with AsyncExitStack() as connections:
        slow = [await connections.enter_async_context(connected(server.port)) for _ in range(50)]
        for _, writer in slow:
            writer.write(half)
            await writer.drain()
        await it_works_on(http, database, queue)
        # Each is told why it is sent away, once its time is over.
        async with asyncio.timeout(20):
            answers = [await reader.read() for reader, _ in slow]
    assert {answer.split(b"\r\n")[0] for answer in answers} == {b"HTTP/1.1 408 Request Timeout"}
    assert all(b'"request-timeout"' in answer for answer in answers)
    assert database.rows("SELECT id FROM jobs WHERE queue = ?", f"{queue} made") == []
