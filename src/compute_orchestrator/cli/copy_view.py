"""What a copy shows: a live bar on a terminal, a few plain lines elsewhere, and its report."""

from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

PLAIN_STEPS: Final = 4
"""Without a terminal progress is said this often."""


class CopyView:
    """A context: a live bar on a terminal, a few plain lines elsewhere, and the report."""

    def __init__(self, *, on_checked: Callable[[], None], console: Console | None = None) -> None:
        self.console = console or Console(highlight=False)
        self._on_checked = on_checked
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
        )
        self._task = self._bar.add_task("", total=None)
        self._steps = 0
        self._done = 0

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

    def start(self, steps: int) -> None:
        self._steps = steps

    def step(self, table: str, steps: int) -> None:
        before = self._done * PLAIN_STEPS // self._steps
        self._done += steps
        quarters = self._done * PLAIN_STEPS // self._steps
        self._bar.update(self._task, description=table, total=self._steps, completed=self._done)
        if not self.console.is_terminal and quarters > before:
            self.say(f"{quarters * 100 // PLAIN_STEPS} % copied and checked ({table})")

    def checked(self) -> None:
        self._on_checked()

    def report(self, rows: dict[str, int], seconds: float) -> None:
        total = sum(rows.values())
        self.say(f"Copied {total:,} rows in {seconds:.1f} s. Counts and sums are the same in both:")
        for table, number in rows.items():
            self.say(f"{number:14,} {table}")
