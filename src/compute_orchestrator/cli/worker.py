"""`orc worker module:app`: run a worker that is written in your own module."""

import sys
import traceback
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from compute_orchestrator.cli.plain import FAILED, MISUSED, stop

if TYPE_CHECKING:
    from compute_orchestrator.client import Worker


def worker(
    target: Annotated[
        str, typer.Argument(metavar="MODULE:APP", help="For example tasks:app, from this folder.")
    ],
    *,
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"],
        typer.Option(help="The least severe line that is logged."),
    ] = "info",
) -> None:
    """Claim jobs and run their tasks, until Ctrl-C or SIGTERM."""
    find_worker(target).run(log_level=log_level)


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
