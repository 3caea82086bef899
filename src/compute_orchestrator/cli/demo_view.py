"""What the demo shows: how far it is, and its report."""

from rich.columns import Columns
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from compute_orchestrator.cli.bar import Bar
from compute_orchestrator.cli.demo_report import Report


class View(Bar):
    """The jobs of a run are counted, then it is reported."""

    def __init__(self, console: Console | None = None) -> None:
        super().__init__(
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.description}"),
            TimeElapsedColumn(),
            console=console,
        )

    def count(self, *, total: int, claimed: int, recovered: int, done: int) -> None:
        counts = f"claimed {claimed}, recovered {recovered}, done {done}"
        if self.move(done=done, total=total, words=counts):
            self.say(f"{done} of {total}: {counts}")

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
