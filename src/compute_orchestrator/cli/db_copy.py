"""`orc db copy`: a whole store goes into another, empty one. This is how a user grows."""

import time
from typing import Annotated, Final

import typer

from compute_orchestrator.cli.exits import INTERRUPTED, MISUSED, stop
from compute_orchestrator.cli.plain import first_line, require_server

MOVED: Final = """\
Next: set ORC_DATABASE_URL to {url} and start the servers.
The source still has everything as well: start no server on it, or its jobs run twice."""

LIVE: Final = """\
This is a copy and not a move: what the source accepted after the copy began is not in it.
Servers on both stores would run the same jobs twice."""


def copy(
    source: Annotated[str, typer.Argument(help="The database URL of the store to copy.")],
    target: Annotated[str, typer.Argument(help="That of an empty one; an SQLite file is made.")],
    *,
    live: Annotated[
        bool,
        typer.Option("--live", help="Beside running servers: a copy of this moment, and no move."),
    ] = False,
) -> None:
    """Move everything to another store: from SQLite to PostgreSQL, back, or to one of its kind.

    The servers of both must be stopped. It is all there in the end, or nothing.
    """
    require_server("db copy")
    from compute_orchestrator.cli.copy_view import CopyView
    from compute_orchestrator.cli.signals import Interrupts
    from compute_orchestrator.db.copy import STORE_ERRORS, CannotCopy, SameStore, copy_store
    from compute_orchestrator.domain.errors import StartupError

    shown = shown_url("TARGET", target)
    shown_url("SOURCE", source)
    started = time.monotonic()
    try:
        with Interrupts() as interrupts, CopyView(on_checked=interrupts.ignore) as view:
            rows = interrupts.run(copy_store(source, target, live=live, listener=view))
    except KeyboardInterrupt:
        stop("stopped before the end; the target is as empty as before", code=INTERRUPTED)
    except SameStore as error:
        stop(str(error), code=MISUSED)
    except CannotCopy as error:
        stop(str(error))
    except StartupError as error:
        stop(error.detail)
    except STORE_ERRORS as error:
        stop(f"the copy failed, and nothing of it was kept: {first_line(error)}")
    view.report(rows, time.monotonic() - started)
    view.say(LIVE if live else MOVED.format(url=shown))


def shown_url(name: str, url: str) -> str:
    """The URL without its password; where it is none of ours the command ends."""
    from compute_orchestrator.db.engine import parse_url
    from compute_orchestrator.domain.errors import UnsupportedStore

    try:
        return parse_url(url).render_as_string()
    except UnsupportedStore as error:
        stop(error.detail.replace("ORC_DATABASE_URL", name), code=MISUSED)
