"""Stores, clock, app and client. A `World` is a whole server in this process on a real store,
with a clock that the test moves.
"""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from compute_orchestrator.main import create_app
from compute_orchestrator.routes.deps import Services
from compute_orchestrator.services.promoter import Promoter
from compute_orchestrator.services.reaper import Pass
from compute_orchestrator.services.wakeups import Wakeups
from compute_orchestrator.settings import Settings
from tests.clocks import ManualClock
from tests.databases import Database
from tests.stores import migrated_file as migrated_file
from tests.stores import new_store as new_store
from tests.stores import postgres as postgres
from tests.stores import put_empty_store
from tests.stores import store_url as store_url

URL = "http://127.0.0.1:8000"
LOOPS = 5
"""The reaper, the promoter, the counters, the lookout, the sightings: each makes a step first."""


class World:
    """A running server and the time it lives in."""

    def __init__(
        self, app: FastAPI, http: httpx.AsyncClient, clock: ManualClock, settings: Settings
    ) -> None:
        self.app = app
        self.http = http
        self.clock = clock
        self.settings = settings

    @property
    def database(self) -> Database:
        return Database(self.settings.database_url)

    @property
    def services(self) -> Services:
        return self.app.state.services

    @property
    def promoter(self) -> Promoter:
        return self.app.state.promoter

    @property
    def wakeups(self) -> Wakeups:
        return self.app.state.wakeups

    async def pass_time(self, seconds: float) -> Pass:
        """Time goes by as in a healthy server: the loops make their steps."""
        done = Pass()
        while seconds > 0:
            step = min(seconds, self.settings.reaper_interval_seconds)
            self.clock.move(step)
            seconds -= step
            await self.promoter.promote_once()
            done += await self.services.reaper.reap_once()
            await self.services.stats.fold_once()
        return done


def settings_for(database_url: str, **settings: Any) -> Settings:
    # The disk's syncs are not what these tests are about; promises/ has them on.
    given: dict[str, Any] = {"database_url": database_url, "sqlite_synchronous": "OFF"}
    return Settings(**{**given, **settings})


@asynccontextmanager
async def running_world(settings: Settings, clock: ManualClock) -> AsyncGenerator[World]:
    app = create_app(settings, clock=clock)
    transport = httpx.ASGITransport(app, client=("127.0.0.1", 50_000), raise_app_exceptions=False)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url=URL) as http,
    ):
        await clock.until_resting(LOOPS)
        yield World(app, http, clock, settings)


@pytest.fixture
def database_url(tmp_path: Path) -> str:
    """Of the world's store. Where the kind of store matters, it is `store_url`."""
    return put_empty_store(tmp_path / "orc.db")


@pytest.fixture
def settings(database_url: str) -> Settings:
    return settings_for(database_url)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def world(settings: Settings, clock: ManualClock) -> AsyncGenerator[World]:
    async with running_world(settings, clock) as world:
        yield world
