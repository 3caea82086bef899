"""The reaper: brings back the jobs of workers that fell silent, and prunes what is long done."""

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass

from compute_orchestrator.db.clock import Clock
from compute_orchestrator.db.sessions import WriteSession
from compute_orchestrator.db.statements.leave import Leaving, leave_running
from compute_orchestrator.db.statements.prune import prune_finished
from compute_orchestrator.db.statements.reap import (
    any_running,
    expired_leases,
    note_pass,
    pull_in_leases,
)
from compute_orchestrator.db.statements.report import Held
from compute_orchestrator.domain.lifecycle import Status
from compute_orchestrator.domain.retry import Lost, decide
from compute_orchestrator.domain.values import REAPER, micros
from compute_orchestrator.services import ranks
from compute_orchestrator.services.coalescer import Coalescer, Operation
from compute_orchestrator.services.transactions import Transactions

REAP_LIMIT = 200
"""Jobs taken in one transaction; a pass goes on until none is left."""
PRUNE_LIMIT = 200
PRUNE_TURNS = 10
"""At most this many batches a pass, so that pruning never holds the writer for long."""
LONGEST_GAP_INTERVALS = 2
JITTER = 0.1


@dataclass(frozen=True, slots=True)
class Pass:
    """What one pass did."""

    requeued: int = 0
    exhausted: int = 0
    cancelled: int = 0
    pruned: int = 0

    @property
    def taken(self) -> int:
        return self.requeued + self.exhausted + self.cancelled

    def __add__(self, other: "Pass") -> "Pass":
        return Pass(
            self.requeued + other.requeued,
            self.exhausted + other.exhausted,
            self.cancelled + other.cancelled,
            self.pruned + other.pruned,
        )


class Reaper:
    """`interval_seconds` between passes; `retention_seconds` None keeps finished jobs for ever."""

    def __init__(
        self,
        transactions: Transactions,
        coalescer: Coalescer,
        clock: Clock,
        *,
        interval_seconds: float,
        retention_seconds: float | None,
    ) -> None:
        self._transactions = transactions
        self._coalescer = coalescer
        self._clock = clock
        self._interval_seconds = interval_seconds
        self._retention_seconds = retention_seconds
        self._last_pass: float | None = None
        self._reap = Operation("reap", ranks.REAP, self._reap_batch, vital=True)
        self._prune = Operation("prune", ranks.HOUSEKEEPING, self._prune_batch)

    async def reap_once(self) -> Pass:
        """One pass: the watch, the expired leases, the pruning."""
        async with self._transactions.read() as session:
            running = await any_running(session)
        done = await self._take_expired() if running else Pass()
        if self._retention_seconds is not None:
            done += await self._prune_old(self._retention_seconds)
        self._last_pass = asyncio.get_running_loop().time()
        return done

    async def rest(self) -> None:
        """Sleep until the next pass; the jitter keeps replicas apart."""
        chance = random.random()  # noqa: S311 - jitter
        await self._clock.sleep(self._interval_seconds * (1 - JITTER * chance))

    @property
    def last_pass_seconds(self) -> float | None:
        """How long ago the last pass ended, in seconds; None before the first."""
        if self._last_pass is None:
            return None
        return asyncio.get_running_loop().time() - self._last_pass

    async def _take_expired(self) -> Pass:
        done = Pass()
        while True:
            taken = await self._coalescer.submit(self._reap, None)
            done += taken
            if taken.taken < REAP_LIMIT:
                return done

    async def _reap_batch(self, session: WriteSession, passes: Sequence[None]) -> Sequence[Pass]:
        watch = await note_pass(session, micros(LONGEST_GAP_INTERVALS * self._interval_seconds))
        if watch is None:
            return [Pass()] * len(passes)
        if watch.anew:
            await pull_in_leases(session)
        expired = await expired_leases(session, watch, REAP_LIMIT)
        left = await leave_running(session, [_lost(held) for held in expired], unseen=True)
        statuses = [job.status for job in left.values()]
        done = Pass(
            requeued=statuses.count(Status.QUEUED),
            exhausted=statuses.count(Status.EXHAUSTED),
            cancelled=statuses.count(Status.CANCELLED),
        )
        return [done, *[Pass()] * (len(passes) - 1)]

    async def _prune_old(self, retention_seconds: float) -> Pass:
        done = Pass()
        for _ in range(PRUNE_TURNS):
            pruned = await self._coalescer.submit(self._prune, retention_seconds)
            done += Pass(pruned=pruned)
            if pruned < PRUNE_LIMIT:
                break
        return done

    async def _prune_batch(
        self, session: WriteSession, retentions: Sequence[float]
    ) -> Sequence[int]:
        pruned = await prune_finished(session, retentions[0], PRUNE_LIMIT)
        return [pruned, *[0] * (len(retentions) - 1)]


def _lost(held: Held) -> Leaving:
    job = held.job
    timed_out = (  # its time was over, not only its lease
        job.timeout_seconds is not None
        and job.locked_at is not None
        and job.lease_expires_at is not None
        and job.locked_at + micros(job.timeout_seconds) <= job.lease_expires_at
    )
    outcome = Lost("timeout" if timed_out else "lease-expired")
    decision = decide(job, outcome, held.now, random.random())  # noqa: S311 - jitter
    return Leaving(job, decision, REAPER)
