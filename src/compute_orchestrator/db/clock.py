"""The store's clock. Injected everywhere; tests pass one that they move by hand."""

import asyncio
import time
from typing import Protocol

from compute_orchestrator.domain.values import MICROS_PER_SECOND, Micros


class Clock(Protocol):
    """Tells the time, never goes back, and lets a loop rest."""

    def now(self) -> Micros: ...

    async def sleep(self, seconds: float, *, until: asyncio.Event | None = None) -> None:
        """Rest for so long, or until the event is set."""
        ...


class SystemClock:
    """The wall clock, kept from going back.

    A step backwards of the wall clock would prolong every lease, so between two readings at least
    the monotonic time between them passes.
    """

    def __init__(self) -> None:
        self._last = time.time_ns() // 1000
        self._last_monotonic = time.monotonic_ns() // 1000

    def now(self) -> Micros:
        monotonic = time.monotonic_ns() // 1000
        self._last = max(time.time_ns() // 1000, self._last + monotonic - self._last_monotonic)
        self._last_monotonic = monotonic
        return Micros(self._last)

    async def sleep(self, seconds: float, *, until: asyncio.Event | None = None) -> None:
        try:
            async with asyncio.timeout(seconds):
                await (until or asyncio.Event()).wait()
        except TimeoutError:
            return


def seconds_between(earlier: Micros, later: Micros) -> float:
    """A span of store time, in seconds."""
    return (later - earlier) / MICROS_PER_SECOND
