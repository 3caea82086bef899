"""`orc demo`: real work through a real server, with a worker killed on the way, and the proof."""

import asyncio
import shutil
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from compute_orchestrator.cli.plain import require_server, stop

if TYPE_CHECKING:
    from compute_orchestrator.cli.demo_run import Ending
    from compute_orchestrator.cli.demo_view import View

INTERRUPTED: Final = 130
SHOWN_FAULTS: Final = 20


def demo(
    *,
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave the server running, to look at.")
    ] = False,
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Of the demo's server; 0 takes a free one.")
    ] = 0,
    files: Annotated[
        int | None, typer.Option(min=30, hidden=True, help="Only this many files.")
    ] = None,
) -> None:
    """Count the standard library in jobs, kill a worker on the way, prove that nothing is lost.

    One job for each Python file of this interpreter's standard library, three worker processes,
    one of them killed with -9 in the middle.
    """
    require_server("demo")
    folder = Path(tempfile.mkdtemp(prefix="orc-demo-"))
    try:
        holds = play(folder, keep=keep, port=port, files=files)
    except (KeyboardInterrupt, asyncio.CancelledError):
        remove(folder)
        stop("stopped; every process of the demo has ended", code=INTERRUPTED)
    except BaseException:
        remove(folder)
        raise
    if not keep:
        remove(folder)
    if not holds:
        raise typer.Exit(1)


def play(folder: Path, *, keep: bool, port: int, files: int | None) -> bool:
    """Run it, show it, and say whether the proof holds."""
    from compute_orchestrator.cli.demo_processes import Children
    from compute_orchestrator.cli.demo_report import add_up, find_faults
    from compute_orchestrator.cli.demo_run import DemoFailed, run_demo
    from compute_orchestrator.cli.demo_tasks import library_files
    from compute_orchestrator.cli.demo_view import View
    from compute_orchestrator.client import ClientError

    started = time.monotonic()
    names = library_files()[:files]
    try:
        with Children(folder) as children:
            with View() as view:
                ending = asyncio.run(run_demo(children, folder, view, files=names, port=port))
            if keep:
                children.let_go(ending.server)
    except (DemoFailed, ClientError) as error:
        stop(f"the demo failed: {error}")
    view.report(add_up(ending.stored))
    faults = find_faults(ending.expected, ending.stored)
    tell(view, ending, faults)
    if keep:
        tell_kept(view, ending, folder)
    view.say(f"It took {time.monotonic() - started:.1f} s.")
    return not faults


def tell(view: "View", ending: "Ending", faults: list[str]) -> None:
    """The proof in words, or what breaks it."""
    jobs = len(ending.expected.job_of_file)
    if not faults:
        view.say(
            f"Proof: {jobs} jobs were accepted and {jobs} results are stored, one for each file."
            " By the audit trail every job succeeded exactly once, took only allowed steps, and"
            " was never under two leases at a time; what the killed worker held was done by others."
        )
        return
    view.say(f"The proof FAILED: {len(faults)} faults.")
    for fault in faults[:SHOWN_FAULTS]:
        view.say(f"- {fault}")
    if len(faults) > SHOWN_FAULTS:
        view.say(f"- and {len(faults) - SHOWN_FAULTS} more")


def tell_kept(view: "View", ending: "Ending", folder: Path) -> None:
    view.say(
        f"The server goes on at {ending.url} (docs: {ending.url}/docs), pid {ending.server.pid},"
        f" its file in {folder}. Stop it: kill {ending.server.pid}"
    )


def remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
