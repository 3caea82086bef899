"""Workers: when each was last seen, and how many jobs it runs."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from compute_orchestrator.db.sessions import ReadSession, Statement, WriteSession
from compute_orchestrator.db.statements.rows import CLOCK_POSTGRESQL, batch
from compute_orchestrator.domain.values import JsonText, Micros

NOTE_SIGHTINGS = Statement(
    sqlite="""
        INSERT INTO workers (worker_id, last_seen_at)
        SELECT value ->> 'worker_id', :now - (value ->> 'age') FROM json_each(:sightings)
         WHERE true
        ON CONFLICT (worker_id) DO UPDATE
           SET last_seen_at = max(last_seen_at, excluded.last_seen_at)
    """,
    postgresql=f"""
        WITH {CLOCK_POSTGRESQL}
        INSERT INTO workers (worker_id, last_seen_at)
        SELECT worker_id, clock.now - age * interval '1 microsecond'
          FROM jsonb_to_recordset(CAST(:sightings AS jsonb)) AS its(worker_id text, age bigint)
         CROSS JOIN clock
         ORDER BY worker_id
        ON CONFLICT (worker_id) DO UPDATE
           SET last_seen_at = greatest(workers.last_seen_at, excluded.last_seen_at)
    """,
)

FORGET_UNSEEN = Statement(
    sqlite="DELETE FROM workers WHERE last_seen_at <= :now - :window",
    postgresql=f"""
        WITH {CLOCK_POSTGRESQL}
        DELETE FROM workers
         WHERE worker_id IN (
            SELECT worker_id FROM workers CROSS JOIN clock
             WHERE last_seen_at <= clock.now - CAST(:window AS bigint) * interval '1 microsecond'
               FOR UPDATE OF workers SKIP LOCKED
        )
    """,
)

SEEN = Statement(
    sqlite="""
        SELECT worker_id, last_seen_at, about FROM workers WHERE last_seen_at > :now - :window
    """,
    postgresql=f"""
        WITH {CLOCK_POSTGRESQL}
        SELECT worker_id, last_seen_at, about FROM workers CROSS JOIN clock
         WHERE last_seen_at > clock.now - CAST(:window AS bigint) * interval '1 microsecond'
    """,
)

RUNNING_BY_WORKER = Statement(
    sqlite="""
        SELECT locked_by, count(*) FROM jobs WHERE status = 'running' GROUP BY locked_by
    """,
    postgresql="""
        SELECT locked_by, count(*) FROM jobs WHERE status = 'running' GROUP BY locked_by
    """,
)


class Sighting(NamedTuple):
    """A worker and when it was last seen."""

    worker_id: str
    last_seen_at: Micros
    about: JsonText | None = None


async def note_sightings(session: WriteSession, ages: Mapping[str, int], window: int) -> None:
    """Remember workers by how long ago they were seen, and forget those unseen for `window`.

    Both in microseconds.
    """
    await session.run(
        NOTE_SIGHTINGS,
        sightings=batch({"worker_id": worker_id, "age": age} for worker_id, age in ages.items()),
    )
    await session.run(FORGET_UNSEEN, window=window)


async def seen_workers(session: ReadSession, window: int) -> Sequence[Sighting]:
    """The workers seen in the last `window` microseconds."""
    return [Sighting._make(row) for row in await session.fetch(SEEN, window=window)]


async def running_by_worker(session: ReadSession) -> dict[str, int]:
    """How many jobs each worker runs."""
    return {row[0]: row[1] for row in await session.fetch(RUNNING_BY_WORKER)}
