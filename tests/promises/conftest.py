"""One server process for a module's tests, each of which has a queue of its own."""

from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from tests.promises.servers import ServerProcess, http_client, running_server


@pytest.fixture(scope="module")
def server_settings() -> dict[str, Any]:
    """A module that needs others says which."""
    return {}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(
    server_settings: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> AsyncGenerator[ServerProcess]:
    """Shared by the tests of a module: it is neither killed nor frozen."""
    async with running_server(tmp_path_factory.mktemp("server"), **server_settings) as server:
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
