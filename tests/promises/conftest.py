"""One server process for a module's tests, each of which has a queue of its own."""

from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from tests.promises.servers import ServerProcess, http_client, running_server


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncGenerator[ServerProcess]:
    """Shared by the tests of a module, with its SETTINGS: it is neither killed nor frozen."""
    module: Any = request.module  # pyright: ignore[reportUnknownMemberType] - pytest has no type
    settings: dict[str, Any] = getattr(module, "SETTINGS", {})
    async with running_server(tmp_path_factory.mktemp("server"), **settings) as server:
        yield server


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def http(server: ServerProcess) -> AsyncGenerator[httpx.AsyncClient]:
    async with http_client(server.url) as http:
        yield http


@pytest.fixture
def queue(request: pytest.FixtureRequest) -> str:
    """A queue that no other test knows."""
    return request.node.name.replace("/", "-")


@pytest.fixture
def database(server: ServerProcess) -> Path:
    return server.database
