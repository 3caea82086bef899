"""Workers: when each was last seen, and how many jobs it runs."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from compute_orchestrator.db.sessions import ReadSession, Statement, WriteSession
from compute_orchestrator.db.statements.rows import batch
from compute_orchestrator.domain.values import JsonText, Micros

NOTE_SIGHTINGS = Statement(
    sqlite="""
        INSERT INTO workers (worker_id, last_seen_at)
        SELECT value ->> 'worker_id', value ->> 'last_seen_at' FROM json_each(:sightings)
         WHERE true
        ON CONFLICT (worker_id) DO UPDATE
           SET last_seen_at = max(last_seen_at, excluded.last_seen_at)
    """,
)

FORGET_UNSEEN = Statement(
    sqlite="DELETE FROM workers WHERE last_seen_at <= :now - :window",
)

SEEN = Statement(
    sqlite="""
        SELECT worker_id, last_seen_at, about FROM workers WHERE last_seen_at > :now - :window
    """,
)

RUNNING_BY_WORKER = Statement(
    sqlite="""
        SELECT locked_by, count(*) FROM jobs WHERE status = 'running' GROUP BY locked_by
    """,
)


class Sighting(NamedTuple):
    """A worker and when it was last seen."""

    worker_id: str
    last_seen_at: Micros
    about: JsonText | None = None


async def note_sightings(
    session: WriteSession, sightings: Mapping[str, Micros], window: int
) -> None:
    """Remember when workers were seen, and forget those unseen for `window` microseconds."""
    await session.run(
        NOTE_SIGHTINGS,
        sightings=batch(
            {"worker_id": worker_id, "last_seen_at": seen} for worker_id, seen in sightings.items()
        ),
    )
    await session.run(FORGET_UNSEEN, window=window)


async def seen_workers(session: ReadSession, window: int) -> Sequence[Sighting]:
    """The workers seen in the last `window` microseconds."""
    return [Sighting._make(row) for row in await session.fetch(SEEN, window=window)]


async def running_by_worker(session: ReadSession) -> dict[str, int]:
    """How many jobs each worker runs."""
    return {row[0]: row[1] for row in await session.fetch(RUNNING_BY_WORKER)}
