"""The time of a server under test: it stands still until the test moves it."""

import asyncio
import math
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

from compute_orchestrator.domain.values import Micros, micros

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)


class StillClock:
    """What the server is given as its clock (`db/clock.py`)."""

    def __init__(self, start: datetime) -> None:
        if start.tzinfo is None:
            raise ValueError(f"{start!r} has no time zone")
        self._now = Micros((start - EPOCH) // MICROSECOND)
        self._resting = 0
        self._one_more_rests = asyncio.Event()

    def now(self) -> Micros:
        return self._now

    def move_to(self, moment: Micros) -> None:
        self._now = moment

    async def sleep(self, seconds: float, *, until: asyncio.Event | None = None) -> None:
        """Until the event is set, or for ever: no time goes by here, and who moves the clock has
        the server do what is due.
        """
        _ = seconds
        self._resting += 1
        self._one_more_rests.set()
        try:
            await (until or asyncio.Event()).wait()
        finally:
            self._resting -= 1

    async def until_resting(self, loops: int) -> None:
        """Until so many are at rest."""
        while self._resting < loops:
            self._one_more_rests.clear()
            await self._one_more_rests.wait()


class Clock:
    """The server's time as the test sees it and moves it."""

    def __init__(self, still: StillClock, pass_time: Callable[[int], Awaitable[None]]) -> None:
        self._still = still
        self._pass_time = pass_time

    def now(self) -> datetime:
        return EPOCH + self._still.now() * MICROSECOND

    async def advance(self, seconds: float) -> None:
        """Let so much of the server's time go by.

        What becomes due on the way happens in its order, each at its own moment: delayed jobs
        become claimable, leases run out. When this returns, it has happened.
        """
        if not (math.isfinite(seconds) and seconds >= 0):
            raise ValueError(f"time goes on, by a number of seconds: {seconds}")
        await self._pass_time(micros(seconds))
