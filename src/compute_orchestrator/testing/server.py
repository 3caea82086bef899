"""The server under test: the real app on a real store, in a thread and a loop of its own.

In a thread, so that nothing that a test does stands in its way: a task that blocks the test's loop,
a blocking client, a fixture that is made outside of any loop.
"""

import asyncio
from contextlib import AbstractContextManager, ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
from anyio.from_thread import BlockingPortal, start_blocking_portal
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource

from compute_orchestrator.main import create_app
from compute_orchestrator.settings import Settings
from compute_orchestrator.testing.clock import StillClock
from compute_orchestrator.testing.passing import REAPER_INTERVAL_SECONDS, Passing
from compute_orchestrator.testing.store import empty_store, is_in_memory, url_of

if TYPE_CHECKING:
    from fastapi import FastAPI

    from compute_orchestrator.services.supervisor import Supervisor

URL = "http://127.0.0.1:8000"
CALLER = ("127.0.0.1", 50_000)

LONGEST_STEP_SECONDS = 2.0


class GivenSettings(Settings):
    """Only what the test gives: the ORC_ variables of the machine are for another server."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        _ = settings_cls, env_settings, dotenv_settings, file_secret_settings
        return (init_settings,)


class Server(httpx.AsyncBaseTransport):
    """Runs from `start()` to `stop()`. As a transport it carries calls from any loop to its own."""

    def __init__(self, clock: StillClock, settings: dict[str, Any]) -> None:
        self.living: list[str] = []
        """The ids of the workers that work beside the test: their leases are kept."""
        self._clock = clock
        self._settings = settings
        self._was_started = False
        self._exits = ExitStack()
        self._portal: BlockingPortal | None = None
        self._app: FastAPI | None = None

    def start(self) -> None:
        if self._was_started:
            raise RuntimeError("a server of a test is started once: make another one")
        self._was_started = True
        with ExitStack() as exits:
            file = exits.enter_context(empty_store())
            app = create_app(_settings_for(file, self._settings), clock=self._clock)
            portal = exits.enter_context(start_blocking_portal())
            lifespan: AbstractContextManager[object] = portal.wrap_async_context_manager(
                app.router.lifespan_context(app)
            )
            exits.enter_context(lifespan)
            portal.call(self._until_still, app)
            exits.callback(portal.call, self._until_still, app)
            exits.callback(self._forget)
            self._portal, self._app = portal, app
            self._exits = exits.pop_all()

    def stop(self) -> None:
        self._exits.close()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if self._portal is None or self._app is None:
            raise httpx.ConnectError("the server of this test does not run", request=request)
        await request.aread()
        app = httpx.ASGITransport(self._app, client=CALLER, raise_app_exceptions=False)
        answering = self._portal.start_task_soon(app.handle_async_request, request)
        return await asyncio.wrap_future(answering)

    async def pass_time(self, span: int, *, silent: int | None = None) -> None:
        """Let so many microseconds go by, in which nobody heartbeats for the job `silent`."""
        if self._portal is None or self._app is None:
            raise RuntimeError("the server of this test does not run")
        state = self._app.state
        passing = Passing(
            self._clock, state.services, state.promoter, living=self.living, silent=silent
        )
        await asyncio.wrap_future(self._portal.start_task_soon(passing.pass_time, span))

    async def _until_still(self, app: "FastAPI") -> None:
        """No loop is in the midst of a step: a read that is cut off leaves a thread behind that
        outlives the event loop.
        """
        supervisor: Supervisor = app.state.supervisor
        with suppress(TimeoutError):
            async with asyncio.timeout(LONGEST_STEP_SECONDS):
                await self._clock.until_resting(supervisor.loops)

    def _forget(self) -> None:
        self._portal = self._app = None


def _settings_for(file: Path, given: dict[str, Any]) -> Settings:
    return GivenSettings(
        database_url=url_of(file),
        sqlite_synchronous="FULL" if is_in_memory(file) else "OFF",
        reaper_interval_seconds=REAPER_INTERVAL_SECONDS,
        **given,
    )
