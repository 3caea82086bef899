"""The supervisor keeps loops alive: a step that fails is logged, counted and survived."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

logger = logging.getLogger(__name__)

RETRY_SECONDS = 1.0
"""How long a loop rests after a step that failed."""


@dataclass(eq=False)
class Loop:
    """A background job: one step, then a rest, over and over. `failures` counts failed steps."""

    name: str
    step: Callable[[], Awaitable[object]]
    rest: Callable[[], Awaitable[object]]
    retry_seconds: float = RETRY_SECONDS
    failures: int = 0

    async def run(self) -> None:
        while True:
            try:
                await self.step()
                await self.rest()
            except Exception:
                self.failures += 1
                logger.exception("%s failed and goes on", self.name)
                await asyncio.sleep(self.retry_seconds)


class Supervisor:
    """Runs loops from `start` to `stop`."""

    def __init__(self) -> None:
        self._tasks: list[asyncio.Task[None]] = []

    def start(self, loop: Loop) -> None:
        self._tasks.append(asyncio.create_task(loop.run(), name=loop.name))

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
