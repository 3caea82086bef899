"""Each test of the API runs on every store, unless it says `ON_SQLITE`."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest

from tests.api.calls import Api
from tests.api.listening import Listening, listening
from tests.clocks import ManualClock
from tests.conftest import World, running_world, settings_for

MakeWorld = Callable[..., Awaitable[World]]
MakeListening = Callable[..., Awaitable[Listening]]


@pytest.fixture
def database_url(store_url: str) -> str:
    return store_url


@pytest.fixture
def api(world: World) -> Api:
    return Api(world.http)


@pytest.fixture
async def exits() -> AsyncGenerator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


@pytest.fixture
def make_world(exits: AsyncExitStack, new_store: Callable[[], str]) -> MakeWorld:
    """Worlds with settings of their own, each on a store of its own."""

    async def make(**settings: Any) -> World:
        return await exits.enter_async_context(
            running_world(settings_for(new_store(), **settings), ManualClock())
        )

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
