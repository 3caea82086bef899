"""Progress for people: a live bar on a terminal, a plain line at every quarter elsewhere."""

from types import TracebackType
from typing import Final, Self

from rich.console import Console
from rich.progress import Progress, ProgressColumn

PLAIN_STEPS: Final = 4
"""Without a terminal progress is said this often over the whole run."""


class Bar:
    """A context: the bar is there inside it."""

    def __init__(self, *columns: ProgressColumn, console: Console | None) -> None:
        self.console = console or Console(highlight=False)
        self._bar = Progress(*columns, console=self.console, transient=True)
        self._task = self._bar.add_task("", total=None)
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

    def move(self, *, done: int, total: int, words: str) -> int:
        """Move the bar, with the words beside it. Where there is no terminal, each quarter is
        answered once, in percent, to be said; else 0.
        """
        self._bar.update(self._task, description=words, total=total, completed=done)
        before, self._said = self._said, done * PLAIN_STEPS // max(total, 1)
        if self.console.is_terminal or self._said <= before:
            return 0
        return self._said * 100 // PLAIN_STEPS
