"""The lookout: the slow poll behind the wake-ups, one for all who wait in this process.

A wake-up is a hint and may be missed: another replica did the work, or a message was lost. So now
and then one look is taken for all sleepers together, and only while there are any.
"""

from compute_orchestrator.db.clock import Clock
from compute_orchestrator.db.statements.look import claimable_in, finished_among
from compute_orchestrator.services.transactions import Transactions
from compute_orchestrator.services.wakeups import Wakeups

ALONE_SECONDS = 15.0
"""Between two looks where every change is made by this process."""
AMONG_OTHERS_SECONDS = 1.0


class Lookout:
    def __init__(
        self,
        transactions: Transactions,
        wakeups: Wakeups,
        clock: Clock,
        *,
        interval_seconds: float = ALONE_SECONDS,
    ) -> None:
        self._transactions = transactions
        self._wakeups = wakeups
        self._clock = clock
        self._interval_seconds = interval_seconds

    async def look_once(self) -> None:
        """Wake whom there is work for, and whose job has ended."""
        self._wakeups.missed.clear()
        queues, jobs = self._wakeups.awaited_queues(), self._wakeups.awaited_jobs()
        if not queues and not jobs:
            return
        async with self._transactions.read() as session:
            claimable = await claimable_in(session, queues, max(queues.values(), default=0))
            finished = await finished_among(session, jobs)
        self._wakeups.work(claimable)
        self._wakeups.finished(finished)

    async def rest(self) -> None:
        """Sleep until the next look."""
        await self._clock.sleep(self._interval_seconds, until=self._wakeups.missed)
