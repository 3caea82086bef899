"""The relay: tells the other replicas what became claimable and what ended, and hears it from them.

What it tells was committed before. It is a hint: who misses it looks a second later
(`services/lookout.py`). Messages are gathered, since each one takes a lock of the whole database.
"""

import asyncio
import json
import logging
from collections import Counter
from collections.abc import Collection, Mapping
from contextlib import suppress

from compute_orchestrator.db.engine import Store
from compute_orchestrator.domain.errors import StoreUnavailable
from compute_orchestrator.domain.values import JobId
from compute_orchestrator.services.wakeups import Wakeups

logger = logging.getLogger(__name__)

SPACING_SECONDS = 0.02
"""Between two messages of one replica."""
QUIET_SECONDS = 30.0
"""After that it tells that there is nothing: of a dead connection only who sends finds out."""
LONGEST_MESSAGE_BYTES = 7_900
"""PostgreSQL takes less than 8,000."""
LOOK = json.dumps({"look": True})
"""Too much to tell: let them look for themselves."""


class Relay:
    def __init__(self, store: Store, wakeups: Wakeups) -> None:
        self._store = store
        self._wakeups = wakeups
        self._work: Counter[str] = Counter()
        self._finished: set[JobId] = set()
        self._untold = asyncio.Event()
        self._lost = False

    def tell(self, work: Mapping[str, int], finished: Collection[JobId]) -> None:
        """Have the others told soon: jobs by queue for which nobody waits here, and ended ones."""
        self._work.update(work)
        if len(self._finished) < LONGEST_MESSAGE_BYTES:  # so many fit into no message
            self._finished.update(finished)
        self._untold.set()

    async def relay_once(self) -> None:
        """One connection's life. It ends by an error, and who supervises this comes again."""
        try:
            async with self._store.channel(self._hear, self._untold.set) as tell:
                self._wakeups.missed.set()  # nobody heard what was told before
                if self._lost:
                    logger.info("the other replicas can be heard again")
                    self._lost = False
                while True:
                    await self._something_untold()
                    await tell(self._take())
                    await asyncio.sleep(SPACING_SECONDS)
        except StoreUnavailable:
            self._lost = True
            raise

    async def rest(self) -> None:
        """There is none: a connection that ended is made anew."""

    async def _something_untold(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(QUIET_SECONDS):
                await self._untold.wait()

    def _take(self) -> str:
        self._untold.clear()
        message = json.dumps({"work": self._work, "finished": list(self._finished)})
        self._work.clear()
        self._finished.clear()
        return message if len(message.encode()) <= LONGEST_MESSAGE_BYTES else LOOK

    def _hear(self, message: str) -> None:
        if message == LOOK:
            self._wakeups.missed.set()
            return
        told = json.loads(message)
        self._wakeups.work(told["work"])
        self._wakeups.finished(told["finished"])
