"""Stats: what waits, what was done, how fast. Read from counters that are kept."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from compute_orchestrator.db.clock import Clock, seconds_between
from compute_orchestrator.db.sessions import WriteSession
from compute_orchestrator.db.statements.stats import (
    Count,
    counts,
    fold_deltas,
    old_deltas,
    oldest_claimable,
    recent_counts,
    store_time,
)
from compute_orchestrator.domain.lifecycle import FINAL, Action, Status
from compute_orchestrator.domain.values import Micros, micros
from compute_orchestrator.services import ranks
from compute_orchestrator.services.coalescer import Coalescer, Operation
from compute_orchestrator.services.transactions import Transactions

LAST_MINUTE_SECONDS = 60.0
"""Counts as young as this are kept apart."""
FOLD_LIMIT = 5_000
"""Counts folded in one transaction, a few milliseconds of the writer."""
FOLD_EVERY_SECONDS = 5.0


@dataclass(slots=True)
class Waiting:
    """What a queue holds now."""

    queued: int = 0
    delayed: int = 0
    running: int = 0


@dataclass(slots=True)
class Totals:
    """What was ever done. `retried` counts requeues that spent a retry."""

    created: int = 0
    succeeded: int = 0
    failed: int = 0
    exhausted: int = 0
    cancelled: int = 0
    retried: int = 0
    lost: int = 0

    @property
    def finished(self) -> int:
        return self.succeeded + self.failed + self.exhausted + self.cancelled


@dataclass(frozen=True, slots=True)
class Stats:
    now: Micros
    queues: Mapping[str, Waiting]
    oldest_queued_seconds: Mapping[str, float]
    totals: Totals
    last_minute: Totals = field(default_factory=Totals)


class StatsService:
    def __init__(self, transactions: Transactions, coalescer: Coalescer, clock: Clock) -> None:
        self._transactions = transactions
        self._coalescer = coalescer
        self._clock = clock
        self._fold = Operation("fold", ranks.HOUSEKEEPING, self._fold_batch)

    async def stats(self) -> Stats:
        async with self._transactions.read() as session:
            now = await store_time(session)
            ever = await counts(session)
            recent = await recent_counts(session, micros(LAST_MINUTE_SECONDS))
            queues = waiting_by_queue(ever)
            oldest = await oldest_claimable(session, json.dumps(list(queues)))
        return Stats(
            now=now,
            queues=queues,
            oldest_queued_seconds={
                queue: max(0.0, seconds_between(run_at, now)) for queue, run_at in oldest.items()
            },
            totals=totals(ever),
            last_minute=totals(recent),
        )

    async def fold_once(self) -> int:
        """Sum up the counts that are older than a minute; how many."""
        async with self._transactions.read() as session:
            old = await old_deltas(session, micros(LAST_MINUTE_SECONDS), FOLD_LIMIT)
        folded = 0
        while old:
            old = await self._coalescer.submit(self._fold, None)
            folded += old
        return folded

    async def rest(self) -> None:
        """Sleep until the next fold."""
        await self._clock.sleep(FOLD_EVERY_SECONDS)

    async def _fold_batch(self, session: WriteSession, calls: Sequence[None]) -> Sequence[int]:
        folded = await fold_deltas(session, micros(LAST_MINUTE_SECONDS), FOLD_LIMIT)
        return [folded, *[0] * (len(calls) - 1)]


def waiting_by_queue(ever: Iterable[Count]) -> dict[str, Waiting]:
    """What each queue holds: all that came into a place, less all that left it."""
    queues: dict[str, Waiting] = {}
    for move in ever:
        waiting = queues.setdefault(move.queue, Waiting())
        for place, sign in ((move.to_place, 1), (move.from_place, -1)):
            if place in ("queued", "delayed", "running"):
                setattr(waiting, place, getattr(waiting, place) + sign * move.jobs)
    return queues


def totals(moves: Iterable[Count]) -> Totals:
    """Sum moves up over all queues."""
    total = Totals()
    for move in moves:
        if move.action == Action.CREATE:
            total.created += move.jobs
        if move.action == Action.LOSE:
            total.lost += move.jobs
        if move.to_place in FINAL:
            setattr(total, move.to_place, getattr(total, move.to_place) + move.jobs)
        elif move.from_place == Status.RUNNING and move.action in (Action.FAIL, Action.LOSE):
            total.retried += move.jobs
    return total
