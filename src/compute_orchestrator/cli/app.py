"""`orc`: its commands in one list. Also `python -m compute_orchestrator.cli.app`."""

from importlib.metadata import version
from typing import Annotated

import typer

from compute_orchestrator.cli.db import db_app
from compute_orchestrator.cli.demo import demo
from compute_orchestrator.cli.serve import serve
from compute_orchestrator.cli.worker import worker

app = typer.Typer(
    name="orc",
    help="A job server that workers in any language speak to over plain HTTP.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


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
) -> None:
    """A job server that workers in any language speak to over plain HTTP."""


app.command("serve")(serve)
app.command("worker")(worker)
app.command("demo")(demo)
app.add_typer(db_app, name="db")


def main() -> None:
    """The entry point of the command."""
    app(prog_name="orc")


if __name__ == "__main__":
    main()
