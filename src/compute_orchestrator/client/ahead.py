"""How many jobs a worker holds beyond those that run, so that none waits while a call is under way.

Nothing for slow jobs. For quick ones, as many as end while one call is made: where that makes the
calls larger and longer, there will be more, up to a bound. Pure: the time is an argument.
"""

import math

# What one call can heartbeat.
MOST_HELD = 1_000

# Calls are not all as quick as they are on average.
SPARE = 1.5

# What is held ahead could also run elsewhere: it is started this soon...
LONGEST_AHEAD_SECONDS = 0.25

# ...and soon by the measure of its lease too.
LEAST_THIRDS = 4

# How far back the rate looks.
MEMORY_SECONDS = 0.5

# The weight of the last call in what a call takes.
NEWEST = 0.3

# For so long nothing is held ahead, once jobs turned out slower than those before them.
CAUTION_SECONDS = 10.0


class Pace:
    """Measures how fast jobs end and how long a call takes."""

    def __init__(self, concurrency: int, now: float) -> None:
        self._most = max(0, MOST_HELD - concurrency)
        self._ended = 0
        self._since = now
        self._rate = 0.0
        self._call_seconds = 0.0
        self._not_before = now

    def ended(self) -> None:
        """One job did."""
        self._ended += 1

    def called(self, seconds: float, now: float) -> None:
        """A call that carries reports and claims took so long, and is over."""
        self._call_seconds += NEWEST * (seconds - self._call_seconds)
        elapsed = now - self._since
        if elapsed <= 0:
            return
        newest = 1 - math.exp(-elapsed / MEMORY_SECONDS)
        self._rate += newest * (self._ended / elapsed - self._rate)
        self._ended = 0
        self._since = now

    def slowed(self, now: float) -> None:
        """What was held ahead had to wait: no longer as it was."""
        self._rate = 0.0
        self._not_before = now + CAUTION_SECONDS

    def ahead(self, now: float, third_seconds: float) -> int:
        """How many to hold, where a third of the shortest lease has so many seconds."""
        if now < self._not_before:
            return 0
        seconds = min(
            SPARE * self._call_seconds, LONGEST_AHEAD_SECONDS, third_seconds / LEAST_THIRDS
        )
        return min(self._most, int(self._rate * seconds))
