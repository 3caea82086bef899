"""What the demo shows: a live bar on a terminal, a few plain lines elsewhere, and the report."""

from types import TracebackType
from typing import Final, Self

from rich.columns import Columns
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from compute_orchestrator.cli.demo_report import Report

PLAIN_STEPS: Final = 4
"""Without a terminal progress is said this often over the whole run."""


class View:
    """A context: the bar is there inside it."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(highlight=False)
        self._bar = Progress(
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[counts]}"),
            TimeElapsedColumn(),
            console=self.console,
            transient=True,
        )
        self._task = self._bar.add_task("jobs", total=None, counts="")
        self._said = 0

    def __enter__(self) -> Self:
        if self.console.is_terminal:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.console.is_terminal:
            self._bar.stop()

    def say(self, line: str) -> None:
        self.console.print(line, markup=False, soft_wrap=True)

    def count(self, *, total: int, claimed: int, recovered: int, done: int) -> None:
        """Move the bar; without a terminal, say it at every quarter."""
        counts = f"claimed {claimed}, recovered {recovered}, done {done}"
        self._bar.update(self._task, total=total, completed=done, counts=counts)
        step = done * PLAIN_STEPS // total
        if not self.console.is_terminal and step > self._said:
            self.say(f"{done} of {total}: {counts}")
        self._said = step

    def report(self, report: Report) -> None:
        self.console.print(Columns([numbers(report), modules(report)], padding=(0, 4)))


def numbers(report: Report) -> Table:
    table = Table(title="From the stored results", show_header=False)
    table.add_column()
    table.add_column(justify="right")
    rows = {
        "jobs": report.jobs,
        "recovered": report.recovered,
        "retries": report.retries,
        "lines": report.lines,
        "functions": report.functions,
        "classes": report.classes,
        "imports": report.imports,
        "files that do not parse": report.unparsed,
    }
    for name, value in rows.items():
        table.add_row(name, f"{value:,}")
    table.add_row("jobs a second", f"{report.jobs_per_second:,.0f}")
    return table


def modules(report: Report) -> Table:
    """The most imported modules, in two columns."""
    table = Table(title="Most imported, by files")
    for _ in range(2):
        table.add_column("module")
        table.add_column("files", justify="right")
    half = -(-len(report.top_modules) // 2)
    left, right = report.top_modules[:half], report.top_modules[half:]
    for row, (name, count) in enumerate(left):
        beside = (right[row][0], str(right[row][1])) if row < len(right) else ("", "")
        table.add_row(name, str(count), *beside)
    return table
