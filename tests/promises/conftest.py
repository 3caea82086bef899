"""One server process on each store for a module's tests, each of which has a queue of its own."""

from collections.abc import AsyncGenerator
from typing import Any

import httpx
import pytest
import pytest_asyncio

from tests.databases import Database
from tests.promises.servers import ServerProcess, http_client, running_server
from tests.stores import STORES


@pytest.fixture(scope="module")
def server_settings() -> dict[str, Any]:
    """A module that needs others says which."""
    return {}


@pytest.fixture(scope="module", params=sorted(STORES))
def server_store_url(request: pytest.FixtureRequest) -> str:
    return STORES[request.param](request)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(
    server_store_url: str,
    server_settings: dict[str, Any],
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncGenerator[ServerProcess]:
    """Shared by the tests of a module: it is neither killed nor frozen."""
    folder = tmp_path_factory.mktemp("server")
    async with running_server(folder, database_url=server_store_url, **server_settings) as server:
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
def database(server: ServerProcess) -> Database:
    return server.database
