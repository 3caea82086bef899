"""Promise 8: the answer of every writing call, lost on the way after the commit, can be asked for
again without a second effect.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any, Final, NamedTuple, cast

import httpx
import pytest
import pytest_asyncio

from tests.databases import Database
from tests.promises.calls import Job, claimed, create, ok, operate, report
from tests.promises.proxies import LossyProxy, lossy_proxy
from tests.promises.servers import ServerProcess, http_client
from tests.promises.workers import expired_leases

pytestmark = [pytest.mark.process, pytest.mark.asyncio(loop_scope="module")]

# What a sign of life moves on, each time.
VOLATILE: Final = frozenset({"updated_at", "last_heartbeat_at", "lease_expires_at"})

# What goes back to its queue is not due, and no other lease runs out, while these tests look.
LATER: Final = {"base_seconds": 60}


class Call(NamedTuple):
    method: str
    path: str
    body: Job | None = None
    headers: dict[str, str] = {}  # noqa: RUF012 - never written to

    async def on(self, http: httpx.AsyncClient) -> httpx.Response:
        return await http.request(self.method, self.path, json=self.body, headers=self.headers)


Prepare = Callable[[httpx.AsyncClient, Database, str], Awaitable[Call]]
CALLS: dict[str, Prepare] = {}


def call(name: str) -> Callable[[Prepare], Prepare]:
    """Registers what prepares a call; every endpoint that writes has one, or several."""

    def register(prepare: Prepare) -> Prepare:
        CALLS[name] = prepare
        return prepare

    return register


@call("create")
async def _(_http: httpx.AsyncClient, _database: Database, queue: str) -> Call:
    body = {"name": "work", "queue": queue, "tags": ["a", "b"], "payload": [1, None]}
    return Call("POST", "/jobs", body, {"Idempotency-Key": f"key of {queue}"})


@call("bulk")
async def _(_http: httpx.AsyncClient, _database: Database, queue: str) -> Call:
    jobs = [{"name": "work", "queue": queue, "tags": ["a"], "payload": n} for n in range(5)]
    return Call("POST", "/jobs/bulk", {"jobs": jobs}, {"Idempotency-Key": f"key of {queue}"})


@call("claim")
async def _(http: httpx.AsyncClient, _database: Database, queue: str) -> Call:
    for _ in range(3):
        await create(http, queue=queue)
    body = {
        "worker_id": "w",
        "queues": [queue],
        "lease_seconds": 60,
        "request_id": f"request of {queue}",
    }
    return Call("POST", "/jobs/claim", body)


@call("sync")
async def _(http: httpx.AsyncClient, _database: Database, queue: str) -> Call:
    done, failed, running = [await lease_on(http, queue) for _ in range(3)]
    for _ in range(5):
        await create(http, queue=queue)

    def item(lease: Job, **fields: Any) -> Job:
        return {"id": lease["id"], "lease_token": lease["lease_token"], **fields}

    body = {
        "reports": [item(done, status="succeeded", result=1), item(failed, status="failed")],
        "heartbeats": [item(running, progress=1)],
        "claim": {
            "queues": [queue],
            "limit": 3,
            "lease_seconds": 60,
            "request_id": f"request of {queue}",
        },
    }
    return Call("POST", "/workers/w/sync", body)


async def lease_on(http: httpx.AsyncClient, queue: str) -> Job:
    await create(http, queue=queue, retry=LATER)
    return await claimed(http, queues=[queue], lease_seconds=60)


@call("heartbeat")
async def _(http: httpx.AsyncClient, _database: Database, queue: str) -> Call:
    lease = await lease_on(http, queue)
    body = {"worker_id": "w", "lease_token": lease["lease_token"], "progress": 1, "checkpoint": [2]}
    return Call("POST", f"/jobs/{lease['id']}/heartbeat", body)


def reporting(status: str, **more: Any) -> None:
    @call(f"report {status} {' '.join(more)}")
    async def _(http: httpx.AsyncClient, _database: Database, queue: str) -> Call:
        lease = await lease_on(http, queue)
        if status == "cancelled":
            await operate(http, lease["id"], "cancel")
        body = {"status": status, "worker_id": "w", "lease_token": lease["lease_token"], **more}
        return Call("PATCH", f"/jobs/{lease['id']}/status", body)


reporting("succeeded", result={"answer": 42})
reporting("failed", error={"type": "Broken"})
reporting("failed", retry_in_seconds=0)
reporting("failed", retryable=False)
reporting("queued")
reporting("queued", run_in_seconds=60)
reporting("cancelled")


@call("cancel a waiting job")
async def _(http: httpx.AsyncClient, _database: Database, queue: str) -> Call:
    return Call("POST", f"/jobs/{(await create(http, queue=queue))['id']}/cancel")


@call("cancel a running job")
async def _(http: httpx.AsyncClient, _database: Database, queue: str) -> Call:
    return Call("POST", f"/jobs/{(await lease_on(http, queue))['id']}/cancel")


@call("cancel by force")
async def _(http: httpx.AsyncClient, _database: Database, queue: str) -> Call:
    return Call("POST", f"/jobs/{(await lease_on(http, queue))['id']}/cancel?force=true")


@call("retry")
async def _(http: httpx.AsyncClient, _database: Database, queue: str) -> Call:
    lease = await lease_on(http, queue)
    ok(await report(http, lease, "failed", retryable=False))
    return Call("POST", f"/jobs/{lease['id']}/retry")


@call("retry again")
async def _(http: httpx.AsyncClient, _database: Database, queue: str) -> Call:
    lease = await lease_on(http, queue)
    ok(await report(http, lease, "succeeded"))
    return Call("POST", f"/jobs/{lease['id']}/retry?again=true")


@call("reap")
async def _(http: httpx.AsyncClient, database: Database, queue: str) -> Call:
    await expired_leases(http, database, queue, 3, retry=LATER)
    return Call("POST", "/jobs/reap")


@call("pause")
async def _(http: httpx.AsyncClient, _database: Database, queue: str) -> Call:
    await create(http, queue=queue)
    return Call("PATCH", f"/queues/{queue}", {"paused": True})


def stands(database: Database) -> dict[str, list[Job]]:
    """All that a call can have an effect on, but for the times of the last sign of life."""
    tables = {
        table: database.rows(f"SELECT * FROM {table} ORDER BY 1, 2")  # noqa: S608 - named here
        for table in ("jobs", "job_events", "job_tags", "idempotency_keys", "queues", "stat_deltas")
    }
    for job in tables["jobs"]:
        for column in VOLATILE:
            job[column] = job[column] is not None
    return tables


@pytest.fixture(scope="module")
def server_settings() -> dict[str, Any]:
    """The reaper passes only when it is told to."""
    return {"reaper_interval_seconds": 3600}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def proxy(server: ServerProcess) -> AsyncGenerator[LossyProxy]:
    async with lossy_proxy(server.port) as proxy:
        yield proxy


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cut(proxy: LossyProxy) -> AsyncGenerator[httpx.AsyncClient]:
    """A client behind the proxy."""
    async with http_client(proxy.url) as http:
        yield http


@pytest.mark.parametrize("name", CALLS)
async def test_a_call_whose_answer_was_lost_has_one_effect(
    name: str,
    http: httpx.AsyncClient,
    cut: httpx.AsyncClient,
    proxy: LossyProxy,
    database: Database,
    queue: str,
) -> None:
    call = await CALLS[name](http, database, queue)
    before = stands(database)
    with proxy.losing(), pytest.raises(httpx.TransportError):
        await call.on(cut)
    status, lost = proxy.last_lost
    assert status in (200, 201)
    once = stands(database)
    assert once != before

    for client in (cut, http):
        answer = ok(await call.on(client))
        assert stands(database) == once
        if name == "reap":
            assert (lost["requeued"], answer["requeued"]) == (3, 0)
        else:
            assert steady(answer) == steady(lost)


def steady(answer: Any) -> Any:
    """Without what each sign of life moves on, at any depth."""
    if isinstance(answer, list):
        return [steady(one) for one in cast("list[Any]", answer)]
    if isinstance(answer, dict):
        fields = cast("Job", answer).items()
        return {field: steady(value) for field, value in fields if field not in VOLATILE}
    return answer


async def test_every_endpoint_that_writes_is_among_these_calls(http: httpx.AsyncClient) -> None:
    paths = ok(await http.get("/openapi.json"))["paths"]
    writing = {
        operation["operationId"]
        for path in paths.values()
        for method, operation in path.items()
        if method != "get"
    }
    assert writing == {
        "cancel_job",
        "claim_job",
        "create_job",
        "create_jobs",
        "heartbeat",
        "reap_jobs",
        "report_job",
        "retry_job",
        "set_queue",
        "sync",
    }


async def test_copies_of_one_create_at_the_same_time_make_one_job(
    http: httpx.AsyncClient, database: Database, queue: str
) -> None:
    call = await CALLS["create"](http, database, queue)
    answers = await asyncio.gather(*(call.on(http) for _ in range(50)))
    assert sorted(answer.status_code for answer in answers) == [200] * 49 + [201]
    assert len({answer.json()["id"] for answer in answers}) == 1
    (stored,) = database.rows("SELECT count(*) AS n FROM jobs WHERE queue = ?", queue)
    assert stored["n"] == 1
