"""Workers: who was seen when. Sightings are kept in memory and written every few seconds."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from compute_orchestrator.db.clock import Clock
from compute_orchestrator.db.sessions import WriteSession
from compute_orchestrator.db.statements.stats import store_time
from compute_orchestrator.db.statements.workers import (
    Aged,
    Sighting,
    note_sightings,
    running_by_worker,
    seen_workers,
)
from compute_orchestrator.domain.values import JsonText, Micros, micros
from compute_orchestrator.services import ranks
from compute_orchestrator.services.coalescer import Coalescer, Operation
from compute_orchestrator.services.transactions import Transactions

WRITE_EVERY_SECONDS = 5.0
REMEMBERED = micros(24 * 3600)
"""Workers unseen for a day are forgotten."""


@dataclass(frozen=True, slots=True)
class Worker:
    worker_id: str
    last_seen_at: Micros
    running: int
    about: JsonText | None


class WorkerService:
    def __init__(self, transactions: Transactions, coalescer: Coalescer, clock: Clock) -> None:
        self._transactions = transactions
        self._coalescer = coalescer
        self._clock = clock
        self._sightings: dict[str, Sighting] = {}
        self._note = Operation("sightings", ranks.HOUSEKEEPING, self._note_batch)

    def seen(self, worker_id: str, about: JsonText | None = None) -> None:
        """Remember that a worker called just now, and what it says of itself, if it does."""
        before = self._sightings.get(worker_id)
        if about is None and before is not None:
            about = before.about
        self._sightings[worker_id] = Sighting(worker_id, self._clock.now(), about)

    async def write_sightings_once(self) -> int:
        """Write what was seen since the last time; how many workers it was."""
        sightings, self._sightings = self._sightings, {}
        if sightings:
            try:
                await self._coalescer.submit(self._note, sightings)
            except BaseException:
                self._sightings = _together(sightings, self._sightings)
                raise
        return len(sightings)

    async def rest(self) -> None:
        """Sleep until the next write."""
        await self._clock.sleep(WRITE_EVERY_SECONDS)

    async def all(self) -> list[Worker]:
        """The workers seen in the last day, the latest first."""
        async with self._transactions.read() as session:
            now = await store_time(session)
            seen = {one.worker_id: one for one in await seen_workers(session, REMEMBERED)}
            running = await running_by_worker(session)
        for one in self._with_ages(self._sightings.values()):
            written = seen.get(one.worker_id)
            about = one.about or (written.about if written is not None else None)
            seen[one.worker_id] = Sighting(one.worker_id, Micros(now - one.age), about)
        workers = [
            Worker(one.worker_id, one.last_seen_at, running.get(one.worker_id, 0), one.about)
            for one in seen.values()
        ]
        return sorted(workers, key=lambda worker: (-worker.last_seen_at, worker.worker_id))

    def _with_ages(self, sightings: Iterable[Sighting]) -> list[Aged]:
        """How many microseconds ago: this process may have another clock than the store."""
        now = self._clock.now()
        return [Aged(one.worker_id, now - one.last_seen_at, one.about) for one in sightings]

    async def _note_batch(
        self, session: WriteSession, batches: Sequence[Mapping[str, Sighting]]
    ) -> Sequence[None]:
        together: dict[str, Sighting] = {}
        for sightings in batches:
            together = _together(together, sightings)
        await note_sightings(session, self._with_ages(together.values()), REMEMBERED)
        return [None] * len(batches)


def _together(older: Mapping[str, Sighting], newer: Mapping[str, Sighting]) -> dict[str, Sighting]:
    """The newer ones, with what a worker said of itself last."""
    both = dict(older)
    for worker_id, one in newer.items():
        before = both.get(worker_id)
        about = one.about or (before.about if before is not None else None)
        both[worker_id] = one._replace(about=about)
    return both
