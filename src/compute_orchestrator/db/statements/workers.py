"""Workers: when each was last seen, and how many jobs it runs."""

from collections.abc import Sequence
from typing import NamedTuple

from compute_orchestrator.db.sessions import ReadSession, Statement, WriteSession
from compute_orchestrator.db.statements.rows import CLOCK_POSTGRESQL, batch
from compute_orchestrator.domain.values import JsonText, Micros

NOTE_SIGHTINGS = Statement(
    sqlite="""
        INSERT INTO workers (worker_id, last_seen_at, about)
        SELECT value ->> 'worker_id', :now - (value ->> 'age'), value ->> 'about'
          FROM json_each(:sightings)
         WHERE true
        ON CONFLICT (worker_id) DO UPDATE
           SET last_seen_at = max(last_seen_at, excluded.last_seen_at),
               about = coalesce(excluded.about, about)
    """,
    postgresql=f"""
        WITH {CLOCK_POSTGRESQL}
        INSERT INTO workers (worker_id, last_seen_at, about)
        SELECT worker_id, clock.now - age * interval '1 microsecond', CAST(about AS json)
          FROM jsonb_to_recordset(CAST(:sightings AS jsonb))
               AS its(worker_id text, age bigint, about text)
         CROSS JOIN clock
         ORDER BY worker_id
        ON CONFLICT (worker_id) DO UPDATE
           SET last_seen_at = greatest(workers.last_seen_at, excluded.last_seen_at),
               about = coalesce(excluded.about, workers.about)
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


class Aged(NamedTuple):
    """A worker, how many microseconds ago it was seen, and what it said of itself, if it did."""

    worker_id: str
    age: int
    about: JsonText | None = None


class Sighting(NamedTuple):
    """A worker and when it was last seen."""

    worker_id: str
    last_seen_at: Micros
    about: JsonText | None = None


async def note_sightings(session: WriteSession, sightings: Sequence[Aged], window: int) -> None:
    """Remember workers that were seen, and forget those unseen for `window` microseconds.

    What a worker said of itself stays until it says something else.
    """
    await session.run(NOTE_SIGHTINGS, sightings=batch(one._asdict() for one in sightings))
    await session.run(FORGET_UNSEEN, window=window)


async def seen_workers(session: ReadSession, window: int) -> Sequence[Sighting]:
    """The workers seen in the last `window` microseconds."""
    return [Sighting._make(row) for row in await session.fetch(SEEN, window=window)]


async def running_by_worker(session: ReadSession) -> dict[str, int]:
    """How many jobs each worker runs."""
    return {row[0]: row[1] for row in await session.fetch(RUNNING_BY_WORKER)}
