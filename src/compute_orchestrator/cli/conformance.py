"""`orc conformance --command '...'`: does a worker, in whatever language, do its duties?"""

import shlex
from typing import TYPE_CHECKING, Annotated

import typer

from compute_orchestrator.cli import output
from compute_orchestrator.cli.exits import FAILED, INTERRUPTED, MISUSED, stop
from compute_orchestrator.cli.output import AsJson
from compute_orchestrator.cli.plain import require_server

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from compute_orchestrator.conformance.duties import Duty
    from compute_orchestrator.conformance.run import Verdict


def conformance(
    *,
    command: Annotated[
        str, typer.Option(help="What starts the worker, such as 'node worker.mjs'.")
    ],
    only: Annotated[
        list[str] | None, typer.Option(help="Only this duty, such as W3; may be repeated.")
    ] = None,
    stop_seconds: Annotated[
        float, typer.Option(min=1, max=60, help="How long it may take to end after SIGTERM.")
    ] = 20.0,
    at_once: Annotated[
        int, typer.Option(min=1, max=32, help="How many workers are tried side by side.")
    ] = 8,
    as_json: AsJson = False,
) -> None:
    """Check a worker in any language against the duties of a worker.

    A server of its own is started, on a store that is thrown away,
    with a proxy before each worker that loses and refuses answers.

    The worker finds ORC_URL, ORC_WORKER_ID and ORC_QUEUES in its
    environment. It must know the jobs conformance.echo,
    conformance.sleep and conformance.fail: see docs/workers.md.
    """
    require_server("conformance")
    words = split(command)
    duties = find_duties(only)
    verdicts = judge(words, duties, at_once=at_once, stop_seconds=stop_seconds)
    (write_verdicts_as_json if as_json else write_verdicts)(verdicts)
    if not is_good(verdicts):
        raise typer.Exit(FAILED)


def split(command: str) -> list[str]:
    """The words of the command, as a shell would split them; no shell runs it."""
    try:
        words = shlex.split(command)
    except ValueError as error:
        stop(f"--command can't be read: {error}", code=MISUSED)
    if not words:
        stop("--command is empty", code=MISUSED)
    return words


def find_duties(names: "Sequence[str] | None") -> "Collection[Duty]":
    from compute_orchestrator.conformance.duties import DUTIES

    if not names:
        return DUTIES
    known = {duty.name: duty for duty in DUTIES}
    if unknown := [name for name in names if name.upper() not in known]:
        stop(f"there is no duty {unknown[0]!r}; they are W1 to W{len(DUTIES)}", code=MISUSED)
    return [known[name.upper()] for name in names]


def judge(
    command: "Sequence[str]",
    duties: "Collection[Duty]",
    *,
    at_once: int,
    stop_seconds: float,
) -> "Sequence[Verdict]":
    """Run the checks. Whatever ends them, no process outlives them."""
    from compute_orchestrator.cli.signals import Interrupts
    from compute_orchestrator.conformance.processes import CannotRun
    from compute_orchestrator.conformance.run import run_checks

    try:
        with Interrupts() as interrupts:
            return interrupts.run(
                run_checks(command, duties=duties, at_once=at_once, stop_seconds=stop_seconds)
            )
    except KeyboardInterrupt:
        stop("stopped; every worker that was started has ended", code=INTERRUPTED)
    except CannotRun as error:
        stop(str(error), code=MISUSED)


def is_good(verdicts: "Sequence[Verdict]") -> bool:
    """Nothing failed, and something was tested."""
    outcomes = {verdict.outcome for verdict in verdicts}
    return "failed" not in outcomes and "passed" in outcomes


def write_verdicts(verdicts: "Sequence[Verdict]") -> None:
    """The table, and below it the reasons."""
    rows = [(verdict.duty.name, verdict.outcome, verdict.duty.title) for verdict in verdicts]
    output.write_table(("DUTY", "OUTCOME", "WHAT"), rows)
    for verdict in verdicts:
        if not verdict.why:
            continue
        output.write(f"\n{verdict.duty.name} {verdict.outcome}: {output.printable(verdict.why)}.")
        if verdict.outcome == "failed" and verdict.lines:
            output.write("    The worker's last lines:")
            for line in verdict.lines:
                output.write(f"    | {output.printable(line)}")


def write_verdicts_as_json(verdicts: "Sequence[Verdict]") -> None:
    for verdict in verdicts:
        output.write_json(
            {
                "duty": verdict.duty.name,
                "title": verdict.duty.title,
                "outcome": verdict.outcome,
                "why": verdict.why,
                "last_lines": list(verdict.lines),
            }
        )
