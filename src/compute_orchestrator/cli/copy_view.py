"""What a copy shows: how far it is, and its report."""

from collections.abc import Callable

from rich.console import Console
from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn

from compute_orchestrator.cli.bar import Bar


class CopyView(Bar):
    """Tables are copied in steps, and checked when all are."""

    def __init__(self, *, on_checked: Callable[[], None], console: Console | None = None) -> None:
        super().__init__(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TimeRemainingColumn(),
            console=console,
        )
        self._on_checked = on_checked
        self._steps = 0
        self._done = 0

    def start(self, steps: int) -> None:
        self._steps = steps

    def step(self, table: str, steps: int) -> None:
        self._done += steps
        if percent := self.move(done=self._done, total=self._steps, words=table):
            self.say(f"{percent} % copied and checked ({table})")

    def checked(self) -> None:
        self._on_checked()

    def report(self, rows: dict[str, int], seconds: float) -> None:
        total = sum(rows.values())
        self.say(f"Copied {total:,} rows in {seconds:.1f} s. Counts and sums are the same in both:")
        for table, number in rows.items():
            self.say(f"{number:14,} {table}")
