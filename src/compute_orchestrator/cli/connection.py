"""Which server a command speaks to, and one conversation with it."""

import asyncio
import logging
import os
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar

import typer

from compute_orchestrator.cli.exits import MISUSED, complain, stop

if TYPE_CHECKING:
    from compute_orchestrator.client import OrchestratorClient

T = TypeVar("T")

URL_VARIABLE: Final = "ORC_URL"
DEFAULT_URL: Final = "http://127.0.0.1:8000"

Url = Annotated[
    str | None,
    typer.Option("--url", metavar="URL", help=f"The server.  [{URL_VARIABLE}, else {DEFAULT_URL}]"),
]

SHORT_PATIENCE_SECONDS: Final = 2.0
"""Who looks at the answer knows sooner that the server is away."""

LONG_PATIENCE_SECONDS: Final = 30.0
"""Who leaves it to work does not want it ended by a restart of the server."""


def server_url(given: str | None) -> str:
    """The flag, else the environment, else this machine. It is never shown whole: there may be a
    password in it.
    """
    from compute_orchestrator.client.calls import check_url

    url = given or os.environ.get(URL_VARIABLE) or DEFAULT_URL
    try:
        check_url(url)
    except ValueError:
        name = "--url" if given else URL_VARIABLE
        stop(f"{name} is not of the form http://host:port", code=MISUSED)
    return url


def open_client(url: str, *, patience_seconds: float) -> "OrchestratorClient":
    """Here, so that a test can put another in its place."""
    from compute_orchestrator.client import OrchestratorClient, Patience

    return OrchestratorClient(url, patience=Patience(total_seconds=patience_seconds))


def ask(
    url: str | None,
    work: Callable[["OrchestratorClient"], Coroutine[Any, Any, T]],
    *,
    patience_seconds: float = SHORT_PATIENCE_SECONDS,
) -> T:
    """What the work brings. Ctrl-C ends it where it waits."""
    shown = server_url(url)

    async def conversation() -> T:
        async with open_client(shown, patience_seconds=patience_seconds) as client:
            return await work(client)

    with RepeatsSaid(patience_seconds):
        try:
            return asyncio.run(conversation())
        except ValueError as error:  # the client's own check of what it was given
            stop(str(error), code=MISUSED)


class RepeatsSaid(logging.Handler):
    """A context: that a call is repeated is said where the wait may be long, else kept quiet."""

    def __init__(self, patience_seconds: float) -> None:
        super().__init__()
        self._is_long = patience_seconds > SHORT_PATIENCE_SECONDS
        self._logger = logging.getLogger("compute_orchestrator.client")

    def __enter__(self) -> None:
        self._logger.addHandler(self)

    def __exit__(self, *_: object) -> None:
        self._logger.removeHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        if self._is_long:
            complain(record.getMessage())
