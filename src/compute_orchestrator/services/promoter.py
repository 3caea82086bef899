"""The promoter: delayed jobs that are due become claimable. It sleeps until the next one is due."""

from collections import Counter
from collections.abc import Sequence

from compute_orchestrator.db.clock import Clock, seconds_between
from compute_orchestrator.db.sessions import WriteSession
from compute_orchestrator.db.statements.promote import Promoted, next_due, promote_due
from compute_orchestrator.domain.values import Micros
from compute_orchestrator.services import ranks
from compute_orchestrator.services.coalescer import Coalescer, Operation
from compute_orchestrator.services.transactions import Transactions
from compute_orchestrator.services.wakeups import Wakeups

PROMOTE_LIMIT = 1_000
"""Jobs promoted in one transaction."""
SHORTEST_SLEEP_SECONDS = 0.005
"""What is due may be held by another replica for a while."""
LONGEST_SLEEP_SECONDS = 60.0
"""The wall clock may be moved while it sleeps: it looks again."""
LONGEST_SLEEP_AMONG_OTHERS_SECONDS = 1.0
"""Where other replicas create delayed jobs too, of which this one hears nothing."""


class Promoter:
    def __init__(
        self,
        transactions: Transactions,
        coalescer: Coalescer,
        wakeups: Wakeups,
        clock: Clock,
        *,
        longest_sleep_seconds: float = LONGEST_SLEEP_SECONDS,
    ) -> None:
        self._transactions = transactions
        self._coalescer = coalescer
        self._wakeups = wakeups
        self._clock = clock
        self._longest_sleep_seconds = longest_sleep_seconds
        self._due: Micros | None = None
        """By the clock of this process, which may be another than the store's."""
        self._promote = Operation("promote", ranks.PROMOTE, self._promote_batch)

    async def promote_once(self) -> Promoted:
        """Promote all that is due, and remember when the next one is."""
        promoted: Counter[str] = Counter()
        while True:
            self._wakeups.delayed.clear()
            async with self._transactions.read() as session:
                due = await next_due(session)
            self._due = None if due is None else Micros(self._clock.now() + due)
            if due is None or due > 0:
                return Promoted(promoted)
            queues = (await self._coalescer.submit(self._promote, None)).queues
            if not queues:  # another replica has them just now
                return Promoted(promoted)
            self._wakeups.became_claimable(queues)
            promoted += queues

    async def rest(self) -> None:
        """Sleep until the next delayed job is due, or a new one came."""
        sleep = self._longest_sleep_seconds
        if self._due is not None:
            now = self._clock.now()
            sleep = min(sleep, max(SHORTEST_SLEEP_SECONDS, seconds_between(now, self._due)))
        await self._clock.sleep(sleep, until=self._wakeups.delayed)

    async def _promote_batch(
        self, session: WriteSession, calls: Sequence[None]
    ) -> Sequence[Promoted]:
        promoted = await promote_due(session, PROMOTE_LIMIT)
        return [promoted, *[Promoted(Counter())] * (len(calls) - 1)]
