"""Ctrl-C, SIGTERM and a closed terminal: they end what a command does, and never its clean-up."""

import asyncio
import signal
from collections.abc import Coroutine
from types import FrameType, TracebackType
from typing import Any, Final, Self, TypeVar

T = TypeVar("T")

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupts:
    """A context: the first signal inside it ends in KeyboardInterrupt, later ones do nothing."""

    def __init__(self) -> None:
        self._ignored = False
        self._running: tuple[asyncio.AbstractEventLoop, asyncio.Task[Any]] | None = None
        self._before: dict[signal.Signals, Any] = {}

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """`asyncio.run`; a signal cancels the work where it waits, never between two steps."""
        try:
            return asyncio.run(self._tracked(work))
        except asyncio.CancelledError:
            raise KeyboardInterrupt from None

    def ignore(self) -> None:
        """From here on the clean-up is not to be disturbed."""
        self._ignored = True

    def __enter__(self) -> Self:
        self._before = {number: signal.signal(number, self._on_signal) for number in SIGNALS}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    async def _tracked(self, work: Coroutine[Any, Any, T]) -> T:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - `asyncio.run` makes one
        self._running = (asyncio.get_running_loop(), task)
        try:
            return await work
        finally:
            self._running = None

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        if self._ignored:
            return
        self._ignored = True
        if self._running is None:
            raise KeyboardInterrupt
        loop, task = self._running
        loop.call_soon_threadsafe(task.cancel)
