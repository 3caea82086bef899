"""A clock that the test moves."""

import asyncio

from compute_orchestrator.domain.values import Micros, micros

START = Micros(1_795_000_000_000_000)  # 2026-11-18


class ManualClock:
    """Stands still until it is moved. Loops that rest on it rest for ever: the test makes their
    steps itself.
    """

    def __init__(self, start: Micros = START) -> None:
        self._now = start
        self._rests = asyncio.Semaphore(0)

    def now(self) -> Micros:
        return self._now

    def move(self, seconds: float) -> None:
        """Move by so many seconds; a negative number is a clock that jumps back."""
        self._now = Micros(self._now + micros(seconds))

    async def sleep(self, seconds: float, *, until: asyncio.Event | None = None) -> None:
        _ = seconds, until
        self._rests.release()
        await asyncio.Event().wait()

    async def until_resting(self, loops: int) -> None:
        """Until so many loops have made their first step."""
        for _ in range(loops):
            await self._rests.acquire()
