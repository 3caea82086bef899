"""`orc`: its commands in one list. Also `python -m compute_orchestrator.cli.app`."""

import sys
from importlib.metadata import version
from typing import TYPE_CHECKING, Annotated, Final, Literal, cast

import typer
from typer.completion import (
    completion_init,  # pyright: ignore[reportPrivateImportUsage] - typer has no other way to it
    install_callback,
    show_callback,
)

from compute_orchestrator.cli.conformance import conformance
from compute_orchestrator.cli.db import db_app
from compute_orchestrator.cli.demo import demo
from compute_orchestrator.cli.exits import EPILOG, Commands
from compute_orchestrator.cli.jobs import jobs_app
from compute_orchestrator.cli.queues import queues_app
from compute_orchestrator.cli.serve import serve
from compute_orchestrator.cli.stats import reap, stats
from compute_orchestrator.cli.submit import submit
from compute_orchestrator.cli.top import top
from compute_orchestrator.cli.worker import worker
from compute_orchestrator.cli.workers import workers

if TYPE_CHECKING:
    from io import TextIOWrapper

app = typer.Typer(
    name="orc",
    cls=Commands,
    epilog=EPILOG,
    no_args_is_help=True,
    add_completion=False,  # typer's own flags guess the shell; ours are told it
    pretty_exceptions_enable=False,
)

Shell = Literal["bash", "zsh", "fish", "powershell", "pwsh"]


def show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"orc {version('compute-orchestrator')}")
        raise typer.Exit


@app.callback()
def orc(
    *,
    version: Annotated[
        bool,
        typer.Option("--version", callback=show_version, is_eager=True, help="Show the version."),
    ] = False,
    install_completion: Annotated[
        Shell | None,
        typer.Option(
            callback=install_callback, is_eager=True, help="Have the shell complete orc's words."
        ),
    ] = None,
    show_completion: Annotated[
        Shell | None,
        typer.Option(
            callback=show_callback, is_eager=True, help="Show what would be installed for it."
        ),
    ] = None,
) -> None:
    """A job server that workers in any language speak to over plain HTTP."""


ASK: Final = "Ask a server"
RUN: Final = "Run one"

app.command("submit", rich_help_panel=ASK)(submit)
app.add_typer(jobs_app, name="jobs", rich_help_panel=ASK)
app.add_typer(queues_app, name="queues", rich_help_panel=ASK)
app.command("workers", rich_help_panel=ASK)(workers)
app.command("stats", rich_help_panel=ASK)(stats)
app.command("top", rich_help_panel=ASK)(top)
app.command("reap", rich_help_panel=ASK)(reap)
app.command("worker", rich_help_panel=RUN)(worker)
app.command("serve", rich_help_panel=RUN)(serve)
app.add_typer(db_app, name="db", rich_help_panel=RUN)
app.command("demo", rich_help_panel=RUN)(demo)
app.command("conformance", rich_help_panel=RUN)(conformance)


def main() -> None:
    """The entry point of the command."""
    for stream in (sys.stdout, sys.stderr):  # a letter that they can't show is no failure
        cast("TextIOWrapper", stream).reconfigure(errors="backslashreplace")
    completion_init()
    app(prog_name="orc")


if __name__ == "__main__":
    main()
