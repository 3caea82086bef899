"""Queues: what waits in each, and the pause."""

from collections.abc import Sequence
from dataclasses import dataclass

from compute_orchestrator.db.sessions import WriteSession
from compute_orchestrator.db.statements.queues import paused_queues, set_paused
from compute_orchestrator.db.statements.stats import counts
from compute_orchestrator.services import ranks
from compute_orchestrator.services.coalescer import Coalescer, Operation
from compute_orchestrator.services.stats import Waiting, waiting_by_queue
from compute_orchestrator.services.transactions import Transactions
from compute_orchestrator.services.wakeups import Wakeups


@dataclass(frozen=True, slots=True)
class Queue:
    name: str
    paused: bool
    waiting: Waiting


@dataclass(frozen=True, slots=True)
class PauseCall:
    name: str
    paused: bool


class QueueService:
    def __init__(self, transactions: Transactions, coalescer: Coalescer, wakeups: Wakeups) -> None:
        self._transactions = transactions
        self._coalescer = coalescer
        self._wakeups = wakeups
        self._pause = Operation(
            "pause", ranks.OPERATE, self._pause_batch, subject=lambda call: call.name
        )

    async def all(self) -> list[Queue]:
        """Every queue that was ever used or is paused, by name."""
        async with self._transactions.read() as session:
            paused = await paused_queues(session)
            waiting = waiting_by_queue(await counts(session))
        return [
            Queue(name, name in paused, waiting.get(name, Waiting()))
            for name in sorted(paused | waiting.keys())
        ]

    async def pause(self, call: PauseCall) -> Queue:
        """Pause or resume a queue; one that was never used may be paused too."""
        await self._coalescer.submit(self._pause, call)
        if not call.paused:
            self._wakeups.missed.set()
        async with self._transactions.read() as session:
            waiting = waiting_by_queue(await counts(session))
        return Queue(call.name, call.paused, waiting.get(call.name, Waiting()))

    async def _pause_batch(
        self, session: WriteSession, calls: Sequence[PauseCall]
    ) -> Sequence[None]:
        await set_paused(session, {call.name: call.paused for call in calls})
        return [None] * len(calls)
