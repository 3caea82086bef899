"""The report on the terminal. Its tables are Markdown, so that the docs can take them over."""

import statistics
from collections.abc import Callable, Sequence

from rich import box
from rich.console import Console
from rich.table import Table

from bench.machine import Machine
from bench.outcome import Outcome, Series

# Wide enough for the tables where the output is no terminal.
WIDTH = 180


def console() -> Console:
    on_terminal = Console()
    return on_terminal if on_terminal.is_terminal else Console(width=WIDTH)


def show_machine(out: Console, machine: Machine) -> None:
    out.print(
        f"{machine.cores} cores, shared with the load generator; Python {machine.python}, "
        f"SQLite {machine.sqlite}, FastAPI {machine.fastapi}, uvicorn {machine.uvicorn}, "
        f"{machine.system}; the disk takes {machine.fsync_ms:.2f} ms to sync 4 KiB (median); "
        f"others kept the processors {machine.busy:.0%} busy just before.",
        highlight=False,
    )


def show_outcome(out: Console, outcome: Outcome) -> None:
    table = Table(box=box.MARKDOWN)
    table.add_column("subject")
    table.add_column("what")
    for name in ("connections", "requests/s", "p50 ms", "p95 ms", "p99 ms", "max ms"):
        table.add_column(name, justify="right")
    for name in ("server CPU us", "generator CPU"):
        table.add_column(name, justify="right")
    table.add_column("durability")
    for series in outcome.series:
        table.add_row(*_cells(series))
    out.print()
    out.rule(outcome.scenario, align="left")
    out.print(table)
    for figure in outcome.figures:
        out.print(f"{figure.what}: {_spread(figure.rounds, ',.2f')}", highlight=False)


def _cells(series: Series) -> Sequence[str]:
    whole = series.step == "all"
    latencies = [measured.latency[series.step] for measured in series.rounds]

    def median(figure: Callable[[int], float], form: str) -> str:
        return format(statistics.median(figure(n) for n in range(len(latencies))), form)

    return [
        series.subject,
        series.what,
        str(series.connections),
        _spread([measured.requests_per_second for measured in series.rounds], ",.0f")
        if whole
        else "",
        median(lambda n: latencies[n].p50, ".2f"),
        median(lambda n: latencies[n].p95, ".2f"),
        median(lambda n: latencies[n].p99, ".2f"),
        format(max(latency.max for latency in latencies), ".1f"),
        median(lambda n: series.rounds[n].server_cpu_us, ".0f") if whole else "",
        median(lambda n: series.rounds[n].generator_busy, ".0%") if whole else "",
        series.durability,
    ]


def _spread(figures: Sequence[float], form: str) -> str:
    """The median, and between which two figures the rounds lay."""
    middle, low, high = statistics.median(figures), min(figures), max(figures)
    return f"{middle:{form}}" + (f" ({low:{form}}-{high:{form}})" if len(figures) > 1 else "")
