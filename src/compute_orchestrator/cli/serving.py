"""The server process of `orc serve`: uvicorn, with the store opened before the port.

In that order a second server on one SQLite file hears of the file first, whatever its port. What
hinders a start is raised to the command, and never logged as a traceback.
"""

import errno
import gc
import math
import signal
import socket
from contextlib import AsyncExitStack
from pathlib import Path
from types import FrameType
from typing import Final

import typer
import uvicorn
from fastapi import FastAPI
from sqlalchemy import make_url
from sqlalchemy.exc import SQLAlchemyError

from compute_orchestrator.cli.plain import first_line
from compute_orchestrator.main import create_app
from compute_orchestrator.settings import Settings
from compute_orchestrator.telemetry import configure_logging

BACKLOG: Final = 2048
GC_THRESHOLDS: Final = (20_000, 50, 50)


class CannotStart(Exception):
    """The store can't be opened or the address not listened on; the words say why."""


def run(settings: Settings) -> None:
    """Serve until SIGTERM or Ctrl-C. Raises StartupError or CannotStart where it can't start."""
    configure_logging(settings.log_level, settings.log_format)
    server = Server(create_app(settings), settings)

    def leave(_signal: int, _frame: FrameType | None) -> None:
        server.should_exit = True

    # uvicorn raises its signal once more when it is done; without a handler of ours that one would
    # end the process as killed, where a clean stop is 0.
    signal.signal(signal.SIGTERM, leave)
    signal.signal(signal.SIGINT, leave)
    server.run()


def settle_memory() -> None:
    """Take what start-up made out of the garbage collector's sight.

    A full collection over it stops every request for a tenth of a second and more.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)


class Server(uvicorn.Server):
    """uvicorn that opens the app's lifespan itself, and says where it listens."""

    def __init__(self, app: FastAPI, settings: Settings) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                lifespan="off",
                ws="none",
                proxy_headers=False,
                access_log=False,
                server_header=False,
                log_config=None,
                log_level="warning",
                backlog=BACKLOG,
                # The app answers all who wait when its time is over; this is for what it can't.
                timeout_graceful_shutdown=math.ceil(settings.shutdown_seconds) + 1,
            )
        )
        self._app = app
        self._settings = settings
        self._opened = AsyncExitStack()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:  # noqa: ARG002 - uvicorn gives none
        try:
            await self._open()
            listener = listen(self._settings.host, self._settings.port)
            await super().startup([listener])
        except BaseException:
            await self._opened.aclose()
            raise
        settle_memory()
        self._announce(listener.getsockname()[1])

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await super().shutdown(sockets)
        await self._opened.aclose()

    async def _open(self) -> None:
        lifespan = self._app.router.lifespan_context(self._app)
        try:
            state = await self._opened.enter_async_context(lifespan)
        except (OSError, SQLAlchemyError) as error:
            store = shown_store(self._settings.database_url)
            raise CannotStart(f"can't open the store {store}: {first_line(error)}") from error
        self.lifespan.state.update(state or {})

    def _announce(self, port: int) -> None:
        host = self._settings.host
        url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        typer.echo(f"Compute Orchestrator listens on {url}")
        typer.echo(f"The docs of its API are at {url}/docs")
        typer.echo(f"Its store is {shown_store(self._settings.database_url)}")


def shown_store(database_url: str) -> str:
    """Where the store is: the whole path of a file, else the URL without what is secret in it."""
    url = make_url(database_url)
    if url.get_backend_name() == "sqlite":
        return str(Path(url.database or "").resolve())
    return url.set(query={}).render_as_string()


def listen(host: str, port: int) -> socket.socket:
    """A socket bound to the address; of a name with several addresses, an IPv4 one."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = min(found, key=lambda it: it[0] != socket.AF_INET)
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise CannotStart(f"can't listen on {host}: {error.strerror}") from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        listener.close()
        advice = "; take another with --port" if error.errno == errno.EADDRINUSE else ""
        raise CannotStart(
            f"can't listen on {host}, port {port}: {error.strerror}{advice}"
        ) from error
    return listener
