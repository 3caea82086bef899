"""Clients and workers against the app itself, and against a server on a socket behind a proxy."""

import asyncio
import socket
from collections.abc import AsyncGenerator, Generator
from contextlib import contextmanager

import pytest
import uvicorn

from compute_orchestrator.client import OrchestratorClient, Worker
from compute_orchestrator.main import create_app
from compute_orchestrator.settings import Settings
from tests.client.wires import LOCAL, Proxy, Wire, proxy_to
from tests.conftest import URL, World


@pytest.fixture
def wire(world: World) -> Wire:
    return Wire(world)


@pytest.fixture
async def client(wire: Wire) -> AsyncGenerator[OrchestratorClient]:
    async with OrchestratorClient(URL, transport=wire) as client:
        yield client


@pytest.fixture
def app(wire: Wire) -> Worker:
    """A worker with a lease of one second: its heartbeats come three times a second."""
    return Worker(URL, worker_id="w", lease_seconds=1, transport=wire)


class Server(uvicorn.Server):
    """An HTTP server in this process; the signals stay pytest's."""

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        yield


@pytest.fixture
async def server_port(settings: Settings) -> AsyncGenerator[int]:
    """The real app on a real socket, in real time. Here, as a process of its own starts slowly."""
    app = create_app(settings.model_copy(update={"reaper_interval_seconds": 0.2}))
    server = Server(uvicorn.Config(app, lifespan="off", ws="none", log_config=None))
    with socket.create_server((LOCAL, 0)) as listening:
        async with app.router.lifespan_context(app):
            serving = asyncio.create_task(server.serve([listening]))
            yield int(listening.getsockname()[1])  # it listens already: calls wait to be answered
            server.should_exit = True
            await serving


@pytest.fixture
async def proxy(server_port: int) -> AsyncGenerator[Proxy]:
    async with proxy_to(server_port) as proxy:
        yield proxy
