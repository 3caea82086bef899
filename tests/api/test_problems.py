"""Problems: every code of section 9, in one shape; 404 and 405 of the router."""

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable

import httpx
import pytest

from compute_orchestrator.domain import errors
from compute_orchestrator.settings import Settings
from tests.api.calls import JSON, NOBODY, Api, Json, ok, problem, told
from tests.api.conftest import MakeWorld
from tests.clocks import ManualClock
from tests.conftest import URL, World, running_world

CODES = {
    "not-local": 403,
    "origin-refused": 403,
    "job-not-found": 404,
    "not-found": 404,
    "method-not-allowed": 405,
    "request-timeout": 408,
    "lease-lost": 409,
    "invalid-transition": 409,
    "payload-too-large": 413,
    "unsupported-media-type": 415,
    "host-refused": 421,
    "validation-error": 422,
    "idempotency-mismatch": 422,
    "internal-error": 500,
    "store-unavailable": 503,
    "overloaded": 503,
    "shutting-down": 503,
}


def test_the_server_has_no_other_codes() -> None:
    def leaves(kind: type[errors.OrchestratorError]) -> set[str]:
        deeper = [leaves(one) for one in kind.__subclasses__()]
        return set[str]().union(*deeper) if deeper else {kind.code}

    told_over_http = leaves(errors.OrchestratorError) - {"internal-error"}
    assert told_over_http == set(CODES) - {"not-found", "method-not-allowed", "internal-error"}


async def lost(api: Api) -> httpx.Response:
    job = await api.create()
    return await api.try_beat({**job, "locked_by": "w", "lease_token": NOBODY})


async def mismatch(api: Api) -> httpx.Response:
    headers = {"Idempotency-Key": "k"}
    await api.http.post("/jobs", json={"name": "a"}, headers=headers)
    return await api.http.post("/jobs", json={"name": "b"}, headers=headers)


async def disobeyed(api: Api) -> httpx.Response:
    return await api.try_report(await api.started(queue="own"), "cancelled")


EARNED: dict[str, Callable[[Api], Awaitable[httpx.Response]]] = {
    "not-local": lambda api: api.http.get("/jobs", headers={"X-Real-IP": "127.0.0.1"}),
    "origin-refused": lambda api: api.http.get("/jobs", headers={"Origin": "null"}),
    "host-refused": lambda api: api.http.get("/jobs", headers={"Host": "evil.example"}),
    "job-not-found": lambda api: api.http.get("/jobs/1"),
    "not-found": lambda api: api.http.get("/nothing"),
    "method-not-allowed": lambda api: api.http.delete("/stats"),
    "lease-lost": lost,
    "invalid-transition": disobeyed,
    "payload-too-large": lambda api: api.http.post(
        "/jobs", json={"name": "a", "payload": "x" * 2**20}
    ),
    "unsupported-media-type": lambda api: api.http.post("/jobs", content=b"{}"),
    "validation-error": lambda api: api.http.post("/jobs", json={}),
    "idempotency-mismatch": mismatch,
}
"""A request that earns each code. The codes of the server's own trouble are earned below."""


async def test_each_code_has_its_status_and_the_one_shape(api: Api) -> None:
    seen: dict[str, tuple[str, str]] = {}
    for code, earn in EARNED.items():
        answer = await earn(api)
        body = problem(answer, CODES[code], code)
        seen[code] = (body["type"], body["title"])
        # Titles say what kind it is, details what happened here.
        assert body["detail"] != body["title"]
        assert list(body)[:5] == ["type", "title", "status", "detail", "code"]
    assert len(set(seen.values())) == len(seen)


async def test_validation_says_where_and_what(world: World) -> None:
    body = problem(await world.http.post("/jobs", json={}), 422, "validation-error")
    assert [fault["where"] for fault in body["errors"]] == ["body.name"]
    answer = await world.http.post("/jobs", content=b"{", headers=JSON)
    assert problem(answer, 422, "validation-error")["errors"][0]["where"] == "body"


async def test_what_should_be_an_object_is_said_in_words_of_json(api: Api) -> None:
    lease = await api.started()
    for answer in (
        await api.http.post("/jobs", json=[]),
        await api.http.post("/jobs", json={"name": "a", "retry": 1}),
        await api.http.patch("/queues/a", json=[]),
        await api.try_report(lease, "failed", error="boom"),
    ):
        (fault,) = problem(answer, 422, "validation-error")["errors"]
        assert fault["what"] == "must be a JSON object"


async def test_a_detail_counts_the_faults_that_it_leaves_out(api: Api) -> None:
    three: Json = {"name": "", "priority": 101, "max_retries": -1}
    for faults, end in ((three, "or equal to 0"), ({**three, "tags": 1, "x": 1}, "; and 2 more")):
        body = problem(await api.http.post("/jobs", json=faults), 422, "validation-error")
        assert body["detail"].endswith(end)
        assert len(body["errors"]) == len(faults)


async def test_a_plus_that_became_a_space_is_explained(world: World) -> None:
    answer = await world.http.get("/jobs?created_after=2026-11-23T21:45:47+00:00")
    (fault,) = problem(answer, 422, "validation-error")["errors"]
    assert fault["what"].endswith("; in a query, write + as %2B")
    answer = await world.http.get("/jobs?created_after=2026-11-23%2021:45")
    assert "%2B" not in problem(answer, 422, "validation-error")["detail"]


async def test_a_wrong_transition_says_where_the_job_stands(api: Api) -> None:
    body = problem(await disobeyed(api), 409, "invalid-transition")
    standing = [
        value for name, value in body.items() if name.endswith("status") and name != "status"
    ]
    assert standing == ["running"]


async def test_what_the_caller_wrote_is_not_echoed_raw(world: World) -> None:
    name = "<script>alert(1)</script>"
    answer = await world.http.post("/jobs", json={name: 1, "name": "a"})
    assert answer.headers["content-type"] == "application/problem+json"
    huge = await world.http.post("/jobs", json={"name": "a", "queue": "x" * 1_000_000})
    assert len(problem(huge, 422, "validation-error")["detail"]) < 2_000


# The router


METHODS = {
    "/jobs": {"GET", "POST"},
    "/jobs/1": {"GET"},
    "/jobs/1/events": {"GET"},
    "/jobs/1/heartbeat": {"POST"},
    "/jobs/1/status": {"PATCH"},
    "/jobs/1/cancel": {"POST"},
    "/jobs/1/retry": {"POST"},
    "/queues": {"GET"},
    "/queues/a": {"PATCH"},
    "/workers": {"GET"},
    "/workers/w/sync": {"POST"},
    "/stats": {"GET"},
    "/livez": {"GET"},
    "/readyz": {"GET"},
    "/health": {"GET"},
}


async def test_other_methods_are_405_and_told_which_are_allowed(world: World) -> None:
    before = world.database.everything()
    for path, allowed in METHODS.items():
        for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW"):
            if method in allowed:
                continue
            answer = await world.http.request(method, path)
            assert answer.status_code == 405, told(answer)
            named = {name.strip() for name in answer.headers["allow"].split(",")}
            assert named - {"HEAD"} == allowed, told(answer)
            if method != "HEAD":
                body = problem(answer, 405, "method-not-allowed")
                assert body["detail"].endswith(f" Allowed here: {answer.headers['allow']}.")
    assert world.database.everything() == before


async def test_claim_and_reap_take_only_posts(world: World) -> None:
    for path in ("/jobs/claim", "/jobs/reap"):
        for method in ("GET", "PUT", "PATCH", "DELETE"):
            answer = await world.http.request(method, path)
            assert 400 <= answer.status_code < 500
            assert answer.headers["content-type"] == "application/problem+json"


async def test_other_paths_are_404(world: World) -> None:
    for path in (
        "/", "/job", "/jobs/", "/jobs/1/", "/jobs/1/status/x", "/jobs//events", "/Jobs", "/v1/jobs",
        "/queues/", "/metrics", "/jobs/bulk/x", "/workers/w/sync/x", "/workers/w",
        "/favicon.ico", "/%00",
        "/%2e%2e", "/é", "/docs/static/nothing.js", "/docs/static/../../pyproject.toml",
        "/docs/static/%2e%2e/%2e%2e/%2e%2e/etc/passwd",
    ):  # fmt: skip
        for method in ("GET", "POST"):
            answer = await world.http.request(method, path)
            assert answer.status_code in ((404,) if method == "GET" else (404, 405)), told(answer)
            assert answer.headers["content-type"] == "application/problem+json"


# The server's own trouble


async def test_a_fault_of_the_server_is_500_and_tells_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail() -> None:
        raise RuntimeError("a secret of the server")

    monkeypatch.setattr(world.services.stats, "stats", fail)
    answer = await world.http.get("/stats")
    body = problem(answer, 500, "internal-error")
    assert "secret" not in json.dumps(body)
    ok(await world.http.get("/queues"))


async def test_a_server_that_shuts_down_says_so(settings: Settings) -> None:
    async with running_world(settings, ManualClock()) as world:
        lease = await Api(world.http).started()
    transport = httpx.ASGITransport(world.app)
    async with httpx.AsyncClient(transport=transport, base_url=URL) as http:
        for answer in (
            await http.post("/jobs", json={"name": "a"}),
            await http.post("/jobs/claim", json={"worker_id": "w"}),
            await Api(http).try_beat(lease),
            await Api(http).try_report(lease, "succeeded"),
            await http.post(f"/jobs/{lease['id']}/cancel"),
        ):
            problem(answer, 503, "shutting-down")
            assert int(answer.headers["retry-after"]) >= 1
        ok(await http.get("/livez"))


async def test_a_body_that_does_not_arrive_is_408(make_world: MakeWorld) -> None:
    world = await make_world(receive_timeout_seconds=0.01)
    before = world.database.everything()

    async def endless() -> AsyncGenerator[bytes]:
        yield b'{"name": '
        await asyncio.Event().wait()

    answer = await world.http.post("/jobs", content=endless(), headers=JSON)
    problem(answer, 408, "request-timeout")
    assert answer.headers["connection"] == "close"
    assert world.database.everything() == before
