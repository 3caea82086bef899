"""`uv run python -m bench`: every scenario in turn, a table each, and JSON on demand."""

import tempfile
import time
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from bench import machine, report
from bench.measurement import MeasurementFailed
from bench.outcome import Outcome, Report
from bench.scenarios import (
    alone,
    big,
    bulk,
    churn,
    claim_report,
    cost,
    create,
    pickup,
    pool,
    servers,
    sync,
    worker,
)
from bench.scenarios.turns import Options


class Scenario(StrEnum):
    CREATE = "create"
    CLAIM_REPORT = "claim-report"
    ALONE = "alone"
    BULK = "bulk"
    SYNC = "sync"
    WORKER = "worker"
    PICKUP = "pickup"
    BIG = "big"
    SERVERS = "servers"
    POOL = "pool"
    COST = "cost"
    CHURN = "churn"


SCENARIOS = {
    Scenario.CREATE: create.run,
    Scenario.CLAIM_REPORT: claim_report.run,
    Scenario.ALONE: alone.run,
    Scenario.BULK: bulk.run,
    Scenario.SYNC: sync.run,
    Scenario.WORKER: worker.run,
    Scenario.PICKUP: pickup.run,
    Scenario.BIG: big.run,
    Scenario.SERVERS: servers.run,
    Scenario.POOL: pool.run,
    Scenario.COST: cost.run,
    Scenario.CHURN: churn.run,
}


def main(
    scenarios: Annotated[
        list[Scenario] | None, typer.Argument(help="All when none is named.")
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Measurements of each subject.")] = 3,
    seconds: Annotated[float, typer.Option(min=0.5, help="Length of a measurement.")] = 1.5,
    warmup: Annotated[float, typer.Option(min=0, help="Seconds before it, not counted.")] = 0.5,
    connections: Annotated[int, typer.Option(min=1, help="Where many are measured.")] = 64,
    minutes: Annotated[int, typer.Option(min=1, help="Length of the churn on each store.")] = 5,
    directory: Annotated[
        Path | None,
        typer.Option(
            "--dir", help="For the databases; on a real disk.", exists=True, file_okay=False
        ),
    ] = None,
    json: Annotated[Path | None, typer.Option(help="Writes every figure to this file.")] = None,
) -> None:
    """Measure the server beside FastAPI without a store, in turns, on one machine."""
    out = report.console()
    if json is not None:
        json.touch()  # a path that can't be written is said now, not after the run
    with tempfile.TemporaryDirectory(prefix="orc-bench-", dir=directory) as name:
        place = Path(name)
        if machine.file_system_of(place) in machine.MEMORY_FILE_SYSTEMS:
            raise typer.BadParameter(f"{place.parent} is in memory; name a disk with --dir")
        here = machine.describe(place)
        report.show_machine(out, here)
        options = Options(
            rounds=rounds,
            seconds=seconds,
            warmup_seconds=warmup,
            connections=connections,
            minutes=minutes,
            directory=place,
            say=lambda what: out.print(f"[dim]{what}[/dim]", highlight=False),
        )
        outcomes = [_run(out, scenario, options) for scenario in scenarios or list(Scenario)]
    if json is not None:
        whole = Report(machine=here, rounds=rounds, seconds=seconds, outcomes=outcomes)
        json.write_text(whole.model_dump_json(indent=2) + "\n")


def _run(out: Console, scenario: Scenario, options: Options) -> Outcome:
    start = time.monotonic()
    try:
        outcome = SCENARIOS[scenario](options)
    except MeasurementFailed as failure:
        out.print(f"[bold red]FAILED[/bold red] {scenario}: {failure}", highlight=False)
        raise typer.Exit(1) from failure
    report.show_outcome(out, outcome)
    out.print(f"[dim]{time.monotonic() - start:.0f} s[/dim]", highlight=False)
    return outcome


if __name__ == "__main__":
    typer.run(main)
