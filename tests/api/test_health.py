"""/livez, /readyz, /health: alive is not ready (section 10)."""

import asyncio
import os

import pytest
from sqlalchemy import make_url

from compute_orchestrator.db import sqlite
from tests.api.calls import Json, ok, problem
from tests.api.conftest import MakeWorld
from tests.conftest import World
from tests.stores import ON_SQLITE

READY = ["/readyz", "/health"]


async def not_ready(world: World) -> Json:
    """What the probes say, when they say 503."""
    answers = [await world.http.get(path) for path in READY]
    for answer in answers:
        assert answer.status_code == 503
        assert int(answer.headers["retry-after"]) >= 1
        assert answer.json()["status"] != "ready"
    ok(await world.http.get("/livez"))
    return answers[0].json()


async def test_ready(world: World) -> None:
    for path in READY:
        body = ok(await world.http.get(path))
        assert set(body) == {"status", "store", "synchronous", "schema", "last_pass_seconds"}
        assert body["status"] == "ready"
        assert body["store"] == make_url(world.settings.database_url).get_backend_name()
        assert isinstance(body["schema"], str)
        assert 0 <= body["last_pass_seconds"] < 15


@ON_SQLITE
async def test_a_relaxed_store_is_named(make_world: MakeWorld) -> None:
    for synchronous in ("FULL", "NORMAL", "OFF"):
        world = await make_world(sqlite_synchronous=synchronous)
        assert ok(await world.http.get("/readyz"))["synchronous"] == synchronous


@ON_SQLITE
async def test_a_store_that_does_not_answer_is_not_ready(
    monkeypatch: pytest.MonkeyPatch, make_world: MakeWorld
) -> None:
    monkeypatch.setattr(sqlite, "BUSY_TIMEOUT_MILLISECONDS", 50)
    world = await make_world()
    os.truncate(world.database.file, 0)
    await not_ready(world)
    for method, path, body in (
        ("POST", "/jobs", {"name": "a"}),
        ("POST", "/jobs/claim", {"worker_id": "w"}),
        ("GET", "/jobs", None),
        ("GET", "/jobs/1", None),
        ("GET", "/stats", None),
        ("GET", "/queues", None),
        ("GET", "/workers", None),
        ("POST", "/jobs/reap", None),
        ("POST", "/jobs/1/cancel", None),
    ):
        answer = await world.http.request(method, path, json=body)
        problem(answer, 503, "store-unavailable")
        assert int(answer.headers["retry-after"]) >= 1


async def test_a_store_without_a_schema_is_not_ready(world: World) -> None:
    world.database.rows("DROP TABLE alembic_version")
    await not_ready(world)


async def test_another_schema_is_not_ready(world: World) -> None:
    world.database.rows("UPDATE alembic_version SET version_num = 'older'")
    assert (await not_ready(world))["schema"] == "older"


async def test_a_reaper_that_sleeps_is_not_ready(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = asyncio.get_running_loop()
    time = loop.time
    monkeypatch.setattr(loop, "time", lambda: time() + 60)
    body = await not_ready(world)
    assert body["last_pass_seconds"] >= 60
    ok(await world.http.post("/jobs/reap"))
    assert ok(await world.http.get("/readyz"))["last_pass_seconds"] < 15
