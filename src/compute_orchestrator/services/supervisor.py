"""The supervisor keeps loops alive: a step that fails is logged, counted and survived."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from compute_orchestrator.domain.errors import Unavailable
from compute_orchestrator.services.outage import Outage

logger = logging.getLogger(__name__)

RETRY_SECONDS = 1.0
"""How long a loop rests after a step that failed."""
LET_GO_SECONDS = 1.0
"""For a step to end once it is cancelled; one that reads from a store that stands still may not."""


@dataclass(eq=False)
class Loop:
    """A background job: one step, then a rest, over and over. `failures` counts failed steps."""

    name: str
    step: Callable[[], Awaitable[object]]
    rest: Callable[[], Awaitable[object]]
    retry_seconds: float = RETRY_SECONDS
    failures: int = 0

    async def run(self) -> None:
        begins = f"{self.name} failed and goes on"
        outage = Outage(logger, begins=begins, ends=f"{self.name} works again")
        while True:
            try:
                await self.step()
                outage.is_over()
                await self.rest()
            except Exception as error:
                self.failures += 1
                if isinstance(error, Unavailable):
                    outage.came(error.detail)
                else:  # it may be a bug
                    logger.warning("%s: %s", begins, error, exc_info=True)
                await asyncio.sleep(self.retry_seconds)


class Supervisor:
    """Runs loops from `start` to `stop`."""

    def __init__(self) -> None:
        self._tasks: list[asyncio.Task[None]] = []

    def start(self, loop: Loop) -> None:
        self._tasks.append(asyncio.create_task(loop.run(), name=loop.name))

    @property
    def loops(self) -> int:
        """How many it runs."""
        return len(self._tasks)

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=LET_GO_SECONDS)
        self._tasks.clear()
