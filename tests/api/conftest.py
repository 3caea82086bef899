"""The store of these tests is a copy of a migrated file: a world is there in 30 ms."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.api.calls import Api
from tests.api.listening import Listening, listening
from tests.api.stores import put_empty_store, settings_for
from tests.clocks import ManualClock
from tests.conftest import World, running_world

MakeWorld = Callable[..., Awaitable[World]]
MakeListening = Callable[..., Awaitable[Listening]]


@pytest.fixture
def database_url(tmp_path: Path) -> str:
    return put_empty_store(tmp_path / "orc.db")


@pytest.fixture
def api(world: World) -> Api:
    return Api(world.http)


@pytest.fixture
async def exits() -> AsyncGenerator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


@pytest.fixture
def make_world(exits: AsyncExitStack, tmp_path: Path) -> MakeWorld:
    """Worlds with settings of their own, each on a file of its own."""
    made: list[World] = []

    async def make(**settings: Any) -> World:
        database_url = put_empty_store(tmp_path / f"world-{len(made)}.db")
        world = await exits.enter_async_context(
            running_world(settings_for(database_url, **settings), ManualClock())
        )
        made.append(world)
        return world

    return make


@pytest.fixture
def make_listening(exits: AsyncExitStack, make_world: MakeWorld) -> MakeListening:
    """Servers that listen on a real port of 127.0.0.1, in this process."""

    async def make(**settings: Any) -> Listening:
        world = await make_world(**settings)
        return await exits.enter_async_context(listening(world))

    return make


@pytest.fixture
async def server(make_listening: MakeListening) -> Listening:
    return await make_listening()
