"""`orc worker module:app`: run a worker that is written in your own module."""

import os
import sys
import traceback
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from compute_orchestrator.cli.connection import DEFAULT_URL, URL_VARIABLE, server_url
from compute_orchestrator.cli.exits import FAILED, MISUSED, stop

if TYPE_CHECKING:
    from collections.abc import Generator

    from compute_orchestrator.client import Worker


def worker(
    target: Annotated[
        str, typer.Argument(metavar="MODULE:APP", help="For example tasks:app, from this folder.")
    ],
    *,
    queue: Annotated[
        list[str] | None,
        typer.Option(help="Take from this queue; may be given several times."),
    ] = None,
    concurrency: Annotated[
        int | None, typer.Option(min=1, help="How many jobs it runs at once.")
    ] = None,
    drain: Annotated[
        bool, typer.Option("--drain", help="End when there is no more that it could do now.")
    ] = False,
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"],
        typer.Option(help="The least severe line that is logged."),
    ] = "info",
    log_format: Annotated[
        Literal["text", "json"], typer.Option(help="For people, or an object a line.")
    ] = "text",
    url: Annotated[
        str | None,
        typer.Option(
            "--url", metavar="URL", help=f"The server.  [{URL_VARIABLE}, else what the module says]"
        ),
    ] = None,
) -> None:
    """Claim jobs and run their tasks, until Ctrl-C or SIGTERM.

    The flags win over what the module says.
    """
    wanted = server_url(url) if url or os.environ.get(URL_VARIABLE) else None
    with changed(find_worker(target), queue, concurrency, wanted) as app:
        app.run(drain=drain, log_level=log_level, log_format=log_format)


@contextmanager
def changed(
    app: "Worker", queues: list[str] | None, concurrency: int | None, url: str | None
) -> "Generator[Worker]":
    """The worker as the flags want it."""
    try:
        if queues is not None:
            app.queues = check_queues(queues)
    except ValueError as error:
        stop(f"--queue: {error}", code=MISUSED)
    if concurrency is not None:
        app.concurrency = concurrency
    if url is None:
        yield app
        return
    metrics_port = app.metrics_port
    with app.attached_to(url):
        app.metrics_port = metrics_port  # it goes without, where a test lends it a server
        yield app


def check_queues(queues: list[str]) -> tuple[str, ...]:
    """As the worker's own constructor does. Raises ValueError."""
    from compute_orchestrator.client import Worker

    return Worker(DEFAULT_URL, queues=queues).queues


def find_worker(target: str) -> "Worker":
    """The worker that `module:name` points at; the current folder is looked in first."""
    from compute_orchestrator.client import Worker

    module_name, _, name = target.partition(":")
    if not (module_name and name):
        stop(f"{target!r} is not of the form MODULE:APP, such as tasks:app", code=MISUSED)
    module = load(module_name)
    if not hasattr(module, name):
        stop(f"the module {module_name!r} has no {name!r}", code=MISUSED)
    found: object = getattr(module, name)
    if not isinstance(found, Worker):
        kind = type(found).__name__
        stop(f"{target} is no Worker: it is of the type {kind}", code=MISUSED)
    return found


def load(module_name: str) -> ModuleType:
    """Import the module; what goes wrong inside it is shown from its own first line on."""
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        return import_module(module_name)
    except Exception as error:  # noqa: BLE001 - foreign code may raise anything
        if is_absent(module_name, error):
            stop(f"there is no module {module_name!r} in {here} or on the path", code=MISUSED)
        typer.echo("".join(own_lines(error)), err=True, nl=False)
        stop(f"importing {module_name!r} failed, see above", code=FAILED)


def is_absent(module_name: str, error: Exception) -> bool:
    """Whether the module itself is missing, and not one that it imports."""
    return isinstance(error, ModuleNotFoundError) and (
        error.name == module_name or module_name.startswith(f"{error.name}.")
    )


def own_lines(error: Exception) -> list[str]:
    """The traceback without the frames of this command and of the import machinery."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if f.filename != __file__ and "importlib" not in f.filename]
    return traceback.format_list(own) + traceback.format_exception_only(error)
