"""Stats: the counters, read and folded. They are kept, not counted: no scan over the jobs."""

from collections.abc import Sequence
from typing import NamedTuple

from compute_orchestrator.db.sessions import ReadSession, Statement, WriteSession
from compute_orchestrator.domain.values import Micros

COUNTS = Statement(
    sqlite="""
        SELECT queue, action, from_place, to_place, sum(count)
          FROM (SELECT queue, action, from_place, to_place, count FROM stats
                UNION ALL
                SELECT queue, action, from_place, to_place, count FROM stat_deltas)
         GROUP BY queue, action, from_place, to_place
    """,
)

# Deltas are folded only when they are older than this window.
RECENT = Statement(
    sqlite="""
        SELECT queue, action, from_place, to_place, sum(count)
          FROM stat_deltas
         WHERE at > :now - :window
         GROUP BY queue, action, from_place, to_place
    """,
)

# From priority to priority by seeks: each has its oldest job first in the index.
OLDEST_CLAIMABLE = Statement(
    sqlite="""
        WITH RECURSIVE head(queue, priority) AS (
            SELECT value, (SELECT max(priority) FROM jobs
                            WHERE status = 'queued' AND delayed = 0 AND queue = value)
              FROM json_each(:queues)
            UNION ALL
            SELECT queue, (SELECT max(priority) FROM jobs
                            WHERE status = 'queued' AND delayed = 0
                              AND jobs.queue = head.queue AND priority < head.priority)
              FROM head WHERE head.priority IS NOT NULL
        )
        SELECT queue, min((SELECT run_at FROM jobs
                            WHERE status = 'queued' AND delayed = 0
                              AND jobs.queue = head.queue AND priority = head.priority
                            ORDER BY run_at LIMIT 1))
          FROM head WHERE priority IS NOT NULL
         GROUP BY queue
    """,
)

OLDEST_DELTA = Statement(
    sqlite="SELECT :now - at FROM stat_deltas ORDER BY id LIMIT 1",
)

LAST_OLD_DELTA = Statement(
    sqlite="SELECT max(id) FROM stat_deltas WHERE at <= :now - :window",
)

FOLD = Statement(
    sqlite="""
        INSERT INTO stats (queue, action, from_place, to_place, count, waited, ran)
        SELECT queue, action, from_place, to_place, sum(count), sum(waited), sum(ran)
          FROM stat_deltas
         WHERE id <= :last_id
         GROUP BY queue, action, from_place, to_place
        ON CONFLICT (queue, action, from_place, to_place) DO UPDATE
           SET count = count + excluded.count,
               waited = waited + excluded.waited,
               ran = ran + excluded.ran
    """,
)

FORGET_FOLDED = Statement(
    sqlite="DELETE FROM stat_deltas WHERE id <= :last_id",
)


class Count(NamedTuple):
    """How many jobs made this move."""

    queue: str
    action: str
    from_place: str
    to_place: str
    jobs: int


async def counts(session: ReadSession) -> Sequence[Count]:
    """Every move since the beginning."""
    return [Count._make(row) for row in await session.fetch(COUNTS)]


async def recent_counts(session: ReadSession, window: int) -> Sequence[Count]:
    """The moves of the last `window` microseconds."""
    return [Count._make(row) for row in await session.fetch(RECENT, window=window)]


async def oldest_claimable(session: ReadSession, queues: str) -> dict[str, Micros]:
    """The smallest `run_at` of the claimable jobs of each queue. `queues` is a JSON list."""
    rows = await session.fetch(OLDEST_CLAIMABLE, queues=queues)
    return {row[0]: row[1] for row in rows if row[1] is not None}


async def oldest_delta_age(session: ReadSession) -> int | None:
    """The age in microseconds of the oldest count that is not folded."""
    rows = await session.fetch(OLDEST_DELTA)
    return rows[0][0] if rows else None


async def fold_deltas(session: WriteSession, window: int) -> None:
    """Move counts older than `window` microseconds into the sums."""
    last_id = (await session.fetch(LAST_OLD_DELTA, window=window))[0][0]
    if last_id is not None:
        await session.run(FOLD, last_id=last_id)
        await session.run(FORGET_FOLDED, last_id=last_id)
