"""Promise 10: bad input is refused with a clear 4xx before anything is written; a store that is
down is a 503 with `Retry-After`, and nothing but the store's return is needed to go on.
"""

import asyncio
import resource
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final, NamedTuple

import httpx
import pytest

from tests.databases import Database
from tests.promises.calls import CREATED, Job, beat, claim, claimed, code, create, get, ok, report
from tests.promises.servers import ServerProcess, http_client, running_server, until

pytestmark = [
    pytest.mark.process,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.timeout(120),
]

JSON: Final = {"Content-Type": "application/json"}
TABLES: Final = ("jobs", "job_events", "job_tags", "idempotency_keys", "queues", "stat_deltas")


class Bad(NamedTuple):
    """A call that must be refused. `{id}` and `{token}` are those of a lease that holds."""

    status: int
    code: str
    path: str
    body: bytes | None
    headers: dict[str, str] = JSON
    method: str = "POST"


@pytest.fixture(scope="module")
def server_settings() -> dict[str, Any]:
    """Small limits; and nothing is written but by the test's own calls."""
    return {
        "max_body_bytes": 20_000,
        "max_payload_bytes": 10_000,
        "max_result_bytes": 100,
        "reaper_interval_seconds": 3600,
    }


def bad_value(json: bytes) -> Bad:
    return Bad(422, "validation-error", "/jobs", b'{"name": "work", "payload": [%s]}' % json)


def bad_field(field: bytes) -> Bad:
    return Bad(422, "validation-error", "/jobs", b'{"name": "work", %s}' % field)


def bad_report(status: int, body: bytes) -> Bad:
    known = b'"worker_id": "w", "lease_token": "{token}", '
    problem = "validation-error" if status == 422 else "payload-too-large"
    return Bad(status, problem, "/jobs/{id}/status", b"{%s%s}" % (known, body), method="PATCH")


BAD: Final = {
    "not a number": bad_value(b"NaN"),
    "infinity": bad_value(b"-Infinity"),
    "beyond a double": bad_value(b"1e400"),
    "beyond 64 bits": bad_value(b"9223372036854775808"),
    "far beyond 64 bits": bad_value(b"-" + b"9" * 5_000),
    "NUL": bad_value(rb'"gpu\u0000evil"'),
    "lone surrogate": bad_value(rb'"\ud800"'),
    "bad UTF-8": bad_value(b'"\xff\xfe"'),
    "too deep": bad_value(b"[" * 101 + b"]" * 101),
    "far too deep": bad_value(b"[" * 9_000),
    "cut off": Bad(422, "validation-error", "/jobs", b'{"name": "work", "payl'),
    "no object": Bad(422, "validation-error", "/jobs", b'["work"]'),
    "no body": Bad(422, "validation-error", "/jobs", b""),
    "no name": Bad(422, "validation-error", "/jobs", b"{}"),
    "name with a control character": Bad(422, "validation-error", "/jobs", rb'{"name": "a\r\nb"}'),
    "queue with a slash": bad_field(b'"queue": "a/b"'),
    "unknown field": bad_field(b'"wait_second": 1'),
    "string for a number": bad_field(b'"priority": "5"'),
    "boolean for a number": bad_field(b'"max_retries": true'),
    "negative duration": bad_field(b'"run_in_seconds": -1'),
    "time without an offset": bad_field(b'"run_at": "2026-11-23T21:45:47"'),
    "two starts": bad_field(b'"run_at": "2026-11-23T21:45:47Z", "run_in_seconds": 1'),
    "payload too large": Bad(
        413, "payload-too-large", "/jobs", b'{"name": "work", "payload": "%s"}' % (b"x" * 10_001)
    ),
    "body too large": Bad(413, "payload-too-large", "/jobs", b" " * 20_001),
    "not JSON": Bad(
        415, "unsupported-media-type", "/jobs", b"name=work", {"Content-Type": "text/plain"}
    ),
    "bad key": Bad(
        422, "validation-error", "/jobs", b'{"name": "work"}', {**JSON, "Idempotency-Key": "a\tb"}
    ),
    "foreign host": Bad(421, "host-refused", "/jobs", b'{"name": "work"}', {**JSON, "Host": "a.b"}),
    "foreign page": Bad(
        403, "origin-refused", "/jobs", b'{"name": "work"}', {**JSON, "Origin": "http://a.b"}
    ),
    "forwarded": Bad(
        403, "not-local", "/jobs", b'{"name": "work"}', {**JSON, "X-Forwarded-For": "127.0.0.1"}
    ),
    "claim of no queue": Bad(
        422, "validation-error", "/jobs/claim", b'{"worker_id": "w", "queues": []}'
    ),
    "claim by nobody": Bad(422, "validation-error", "/jobs/claim", b"{}"),
    "heartbeat without a token": Bad(
        422, "validation-error", "/jobs/{id}/heartbeat", b'{"worker_id": "w", "progress": 1}'
    ),
    "report of a result of a failure": bad_report(422, b'"status": "failed", "result": 1'),
    "report of no status": bad_report(422, b'"status": "exhausted"'),
    "result too large": bad_report(413, b'"status": "succeeded", "result": "%s"' % (b"x" * 101)),
    "id that is none": Bad(422, "validation-error", "/jobs/{token}/cancel", None),
    "id beyond 64 bits": Bad(422, "validation-error", f"/jobs/{2**63}/cancel", None),
    "unknown parameter": Bad(422, "validation-error", "/jobs/{id}/cancel?froce=true", None),
    "job that is not there": Bad(404, "job-not-found", f"/jobs/{2**40}/cancel", None),
    "pause with a word": Bad(
        422, "validation-error", "/queues/q", b'{"paused": "yes"}', method="PATCH"
    ),
    "wrong method": Bad(405, "method-not-allowed", "/jobs", b"{}", method="PUT"),
}


def stands(database: Database) -> dict[str, list[Job]]:
    return {
        table: database.rows(f"SELECT * FROM {table}")  # noqa: S608 - named above
        for table in TABLES
    }


@pytest.mark.parametrize("name", BAD)
async def test_bad_input_is_refused_and_nothing_is_written(
    name: str, http: httpx.AsyncClient, database: Database, queue: str
) -> None:
    bad = BAD[name]
    await create(http, queue=queue, max_retries=0)
    lease = await claimed(http, queues=[queue], lease_seconds=60)
    token = lease["lease_token"]
    before = stands(database)
    answer = await http.request(
        bad.method,
        bad.path.format(id=lease["id"], token=token),
        content=bad.body and bad.body.replace(b"{token}", token.encode()),
        headers=bad.headers,
    )
    assert (answer.status_code, code(answer)) == (bad.status, bad.code)
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.json()["detail"]
    assert stands(database) == before
    # The lease holds, and the queue goes on.
    ok(await report(http, lease, "succeeded"))
    created = await create(http, queue=queue)
    assert (await claimed(http, queues=[queue]))["id"] == created["id"]


Trouble = Callable[[ServerProcess, Callable[[], Awaitable[None]]], Awaitable[None]]


async def locked(server: ServerProcess, meanwhile: Callable[[], Awaitable[None]]) -> None:
    """Another process has the store."""
    with server.database.locked():
        await meanwhile()


async def disk_full(server: ServerProcess, meanwhile: Callable[[], Awaitable[None]]) -> None:
    """The system lets the server's files grow no more."""
    _, hard = resource.prlimit(server.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (0, hard))
    await meanwhile()
    resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (hard, hard))


@pytest.mark.parametrize(
    ("new_store", "trouble"),
    [("sqlite", locked), ("sqlite", disk_full), ("postgresql", locked)],
    indirect=["new_store"],
    ids=lambda it: it if isinstance(it, str) else it.__name__,
)
async def test_a_store_that_is_down_is_a_503_and_comes_back_by_itself(
    tmp_path: Path, store_url: str, trouble: Trouble
) -> None:
    async with (
        running_server(tmp_path, database_url=store_url) as server,
        http_client(server.url) as http,
    ):
        for _ in range(3):
            await create(http)
        first, second = [await claimed(http, lease_seconds=60) for _ in range(2)]
        waiting = (await http.get("/jobs?status=queued")).json()["jobs"][0]

        async def all_is_refused() -> None:
            # The first waits five seconds for the lock, and so do the others, together, after it.
            async with asyncio.timeout(20):
                answers = await asyncio.gather(
                    http.post("/jobs", json={"name": "refused"}),
                    http.post("/jobs", json={"name": "refused"}, headers={"Idempotency-Key": "k"}),
                    http.post("/jobs/claim", json={"worker_id": "w"}),
                    beat(http, first, progress="refused"),
                    report(http, second, "succeeded", result="refused"),
                    http.post(f"/jobs/{waiting['id']}/cancel"),
                    http.patch("/queues/default", json={"paused": True}),
                )
            for answer in answers:
                assert (answer.status_code, code(answer)) == (503, "store-unavailable")
                assert int(answer.headers["Retry-After"]) >= 1
                assert "ask again" in answer.json()["detail"]
            assert (await http.get("/livez")).is_success
            assert (await get(http, waiting["id"]))["status"] == "queued"

        before = stands(server.database)
        await trouble(server, all_is_refused)
        assert stands(server.database) == before

        async def writes_again() -> bool:
            answer = await http.post("/jobs", json={"name": "work"})
            assert answer.status_code in (CREATED, 503)
            return answer.status_code == CREATED

        await until(writes_again, 10)
        ok(await beat(http, first))
        ok(await report(http, first, "succeeded"))
        ok(await report(http, second, "succeeded"))
        assert (await claim(http) or {})["id"] == waiting["id"]
        assert server.database.is_whole()
        assert server.database.value("SELECT count(*) FROM jobs WHERE name = 'refused'") == 0


async def test_an_overloaded_server_refuses_creates_and_still_takes_heartbeats(
    tmp_path: Path, store_url: str
) -> None:
    settings: dict[str, Any] = {"max_waiting_calls": 5, "database_url": store_url}
    async with running_server(tmp_path, **settings) as server, http_client(server.url) as http:
        await create(http)
        lease = await claimed(http, lease_seconds=60)
        with server.database.locked():
            creates = [asyncio.create_task(create_or_not(http)) for _ in range(40)]
            refused, _ = await asyncio.wait(creates, timeout=3, return_when="FIRST_COMPLETED")
            assert refused
            beating = asyncio.create_task(beat(http, lease))
            answers = [task.result() for task in refused]
        ok(await beating)
        answers = await asyncio.gather(*creates)
        codes = {code(answer) for answer in answers}
        assert codes == {"overloaded", "queued"}
        overloaded = [answer for answer in answers if answer.status_code == 503]
        assert all(int(answer.headers["Retry-After"]) >= 1 for answer in overloaded)
        created = len(answers) - len(overloaded)
        assert server.database.value("SELECT count(*) FROM jobs") == created + 1


async def create_or_not(http: httpx.AsyncClient) -> httpx.Response:
    return await http.post("/jobs", json={"name": "work"})
