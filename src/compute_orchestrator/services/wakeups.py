"""Wake-ups: who sleeps until there is something to do learns here that there may be.

A wake-up is a hint, sent after the commit: its sleeper looks for itself.
"""

import asyncio
from collections.abc import Sequence

from compute_orchestrator.domain.lifecycle import Step


class Wakeups:
    """In one process, an event a sleeper."""

    def __init__(self) -> None:
        self.delayed = asyncio.Event()
        """A job was queued for later: the promoter looks when the next one is due."""

    def announce(self, steps: Sequence[Step]) -> None:
        """These changes were committed."""
        if any(step.delayed_to for step in steps):
            self.delayed.set()
