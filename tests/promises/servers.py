"""Real server processes, each on a free port: started, stopped, frozen and killed by its pid."""

import asyncio
import os
import signal
import socket
import sys
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import httpx

from tests.databases import Database
from tests.forks import ForkedProcess
from tests.stores import put_empty_store, sqlite_url

if TYPE_CHECKING:
    from asyncio.subprocess import Process

T = TypeVar("T")

LOCAL: Final = "127.0.0.1"
ORC_SERVE: Final = (sys.executable, "-m", "compute_orchestrator.cli.app", "serve")
APP: Final = "compute_orchestrator.main:app"
UVICORN: Final = (sys.executable, "-m", "uvicorn", APP, "--host", LOCAL, "--port", "{port}")
START_SECONDS: Final = 60.0
ENOUGH_SECONDS: Final = 30.0
LOOK_EVERY_SECONDS: Final = 0.02

# The reaper looks often, so that leases may be short: three of its intervals and more.
QUICK: Final = {"reaper_interval_seconds": 0.2, "lease_seconds": 2, "log_level": "warning"}


async def until(look: Callable[[], Awaitable[T]], seconds: float = ENOUGH_SECONDS) -> T:
    """What `look` finds, as soon as it finds something.

    Another process gives no signal here when its state changes, so it is looked at again and again,
    up to a deadline. No test is right because of how long that took.
    """
    async with asyncio.timeout(seconds):
        while True:
            found = await look()
            if found:
                return found
            await real_seconds(LOOK_EVERY_SECONDS)


async def real_seconds(seconds: float) -> None:
    """Let real time go by: a server process has a real clock, and promise 9 tells of gaps."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await asyncio.Event().wait()


def free_port() -> int:
    with socket.create_server((LOCAL, 0)) as listener:
        return listener.getsockname()[1]


def http_client(url: str, seconds: float = 30.0) -> httpx.AsyncClient:
    """A client that opens a connection for each call in flight. It keeps none as long as the server
    does: one that both give up at the same moment would lose a call.
    """
    limits = httpx.Limits(
        max_connections=None, max_keepalive_connections=None, keepalive_expiry=1.0
    )
    return httpx.AsyncClient(base_url=url, limits=limits, timeout=seconds, trust_env=False)


@asynccontextmanager
async def connected(port: int) -> AsyncGenerator[tuple[StreamReader, StreamWriter]]:
    """A bare connection, for requests that no client would send."""
    reader, writer = await asyncio.open_connection(LOCAL, port)
    try:
        yield reader, writer
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


class ServerProcess:
    """A server that may be started again and again on its store and port.

    `settings` are the ORC_ settings that differ, in lower case. Without a `database_url` its store
    is a file in the folder, which has its schema, unless it is to be `fresh`. Started by a fork, or
    by a `command`, in which `{port}` is the port.
    """

    def __init__(
        self,
        folder: Path,
        *,
        command: Sequence[str] = (),
        fresh: bool = False,
        database_url: str = "",
        **settings: Any,
    ) -> None:
        path = folder / "orc.db"
        if not database_url and not fresh and not path.exists():
            put_empty_store(path)
        self.database = Database(database_url or sqlite_url(path))
        self.port = free_port()
        self.url = f"http://{LOCAL}:{self.port}"
        self._command = [word.format(port=self.port) for word in command]
        self._settings = {
            "database_url": self.database.url,
            "port": self.port,
            **QUICK,
            **settings,
        }
        self._folder = folder
        self._log = folder / f"server-{self.port}.log"
        self._process: Process | ForkedProcess | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    async def spawn(self) -> None:
        """Start the process, and wait for nothing."""
        environment = dict(os.environ)
        environment |= {f"ORC_{name.upper()}": str(value) for name, value in self._settings.items()}
        if not self._command:
            self._process = ForkedProcess(
                ["serve"], environment=environment, folder=self._folder, log=self._log
            )
            return
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self._command, env=environment, cwd=self._folder, stdout=log, stderr=log
            )

    async def start(self) -> None:
        """Start the process, and wait until it says that it is ready."""
        await self.spawn()
        async with http_client(self.url) as http:
            await until(lambda: self._is_ready(http), START_SECONDS)

    async def _is_ready(self, http: httpx.AsyncClient) -> bool:
        assert self._process is not None
        assert self._process.returncode is None, self.log
        try:
            return (await http.get("/readyz")).is_success
        except httpx.TransportError:
            return False

    def send(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    async def wait(self, seconds: float = ENOUGH_SECONDS) -> int:
        """The exit code, as soon as there is one."""
        assert self._process is not None
        async with asyncio.timeout(seconds):
            return await self._process.wait()

    async def kill(self) -> None:
        """kill -9."""
        self.send(signal.SIGKILL)
        await self.wait()

    async def stop(self) -> int:
        """SIGTERM; the exit code."""
        self.send(signal.SIGTERM)
        return await self.wait()

    def freeze(self) -> None:
        self.send(signal.SIGSTOP)

    def thaw(self) -> None:
        self.send(signal.SIGCONT)

    async def end(self) -> None:
        """At the end of a test, in whatever state it is."""
        if self._process is None or self._process.returncode is not None:
            return
        self.thaw()
        self.send(signal.SIGTERM)
        try:
            await self.wait(30)  # its own deadlines add up to about 17 s
        except TimeoutError:
            await self.kill()
            raise


@asynccontextmanager
async def running_server(folder: Path, **settings: Any) -> AsyncGenerator[ServerProcess]:
    """A server that is ready, and ended in the end."""
    server = ServerProcess(folder, **settings)
    try:
        await server.start()
        yield server
    finally:
        await server.end()
