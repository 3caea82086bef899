"""Promote: delayed jobs that are due become claimable. To the outside they were `queued` before."""

from collections import Counter
from dataclasses import dataclass

from compute_orchestrator.db.sessions import ReadSession, Statement, WriteSession
from compute_orchestrator.db.statements.rows import CLOCK_POSTGRESQL
from compute_orchestrator.db.statements.trail import Move, Sums, write_deltas

PROMOTE = Statement(
    sqlite="""
        UPDATE jobs
           SET delayed = 0
         WHERE id IN (SELECT id FROM jobs
                       WHERE status = 'queued' AND delayed = 1 AND run_at <= :now
                       ORDER BY run_at LIMIT :n)
        RETURNING queue
    """,
    postgresql=f"""
        WITH {CLOCK_POSTGRESQL},
             due AS (
            SELECT id FROM jobs
             WHERE status = 'queued' AND delayed = 1 AND run_at <= (SELECT now FROM clock)
             ORDER BY run_at LIMIT :n
               FOR UPDATE SKIP LOCKED
        )
        UPDATE jobs
           SET delayed = 0
          FROM due
         WHERE jobs.id = due.id
        RETURNING queue
    """,
)

# On PostgreSQL not min(), for which 15 reads the whole index where it has no statistics yet.
NEXT_DUE = Statement(
    sqlite="SELECT min(run_at) - :now FROM jobs WHERE status = 'queued' AND delayed = 1",
    postgresql=f"""
        WITH {CLOCK_POSTGRESQL}
        SELECT CAST(extract(epoch FROM (SELECT run_at FROM jobs
                                         WHERE status = 'queued' AND delayed = 1
                                         ORDER BY run_at LIMIT 1)
                                       - clock.now) * 1000000 AS bigint)
          FROM clock
    """,
)


@dataclass(frozen=True, slots=True)
class Promoted:
    """How many jobs became claimable, by queue."""

    queues: Counter[str]


async def promote_due(session: WriteSession, limit: int) -> Promoted:
    """Make at most `limit` due jobs claimable."""
    rows = await session.fetch(PROMOTE, n=limit)
    queues = Counter(row[0] for row in rows)
    if queues:
        moves = {
            Move(queue, "promote", "delayed", "queued"): Sums(jobs)
            for queue, jobs in queues.items()
        }
        await write_deltas(session, moves)
    return Promoted(queues)


async def next_due(session: ReadSession) -> int | None:
    """In how many microseconds the next delayed job is due, or None."""
    rows = await session.fetch(NEXT_DUE)
    return rows[0][0]
