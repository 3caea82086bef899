"""Stats: the counters, read and folded. They are kept, not counted: no scan over the jobs."""

from collections.abc import Sequence
from typing import NamedTuple

from compute_orchestrator.db.sessions import ReadSession, Statement, WriteSession
from compute_orchestrator.db.statements.rows import CLOCK_POSTGRESQL
from compute_orchestrator.domain.values import Micros

STORE_TIME = Statement(
    sqlite="SELECT :now",
    postgresql=f"WITH {CLOCK_POSTGRESQL} SELECT now FROM clock",
)

COUNTS = Statement(
    sqlite="""
        SELECT queue, action, from_place, to_place, sum(count)
          FROM (SELECT queue, action, from_place, to_place, count FROM stats
                UNION ALL
                SELECT queue, action, from_place, to_place, count FROM stat_deltas)
         GROUP BY queue, action, from_place, to_place
    """,
    postgresql="""
        SELECT queue, action, from_place, to_place, CAST(sum(count) AS bigint)
          FROM (SELECT queue, action, from_place, to_place, count FROM stats
                UNION ALL
                SELECT queue, action, from_place, to_place, count FROM stat_deltas) AS both_sums
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
    postgresql=f"""
        WITH {CLOCK_POSTGRESQL}
        SELECT queue, action, from_place, to_place, CAST(sum(count) AS bigint)
          FROM stat_deltas CROSS JOIN clock
         WHERE at > clock.now - CAST(:window AS bigint) * interval '1 microsecond'
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
    postgresql="""
        WITH RECURSIVE head(queue, priority) AS (
            SELECT its.queue, (SELECT max(priority) FROM jobs
                                WHERE status = 'queued' AND delayed = 0
                                  AND jobs.queue = its.queue)
              FROM jsonb_array_elements_text(CAST(:queues AS jsonb)) AS its(queue)
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

# Of the first n: rows come in the order of time, unless the clock was set back between two runs.
_OLD_DELTAS_SQLITE = """
    SELECT count(*), max(id)
      FROM (SELECT id, at FROM stat_deltas ORDER BY id LIMIT :n)
     WHERE at <= :now - :window
"""

OLD_DELTAS = Statement(
    sqlite=_OLD_DELTAS_SQLITE,
    postgresql=f"""
        WITH {CLOCK_POSTGRESQL}
        SELECT count(*), max(id)
          FROM (SELECT id, at FROM stat_deltas ORDER BY id LIMIT :n) AS first_ones CROSS JOIN clock
         WHERE at <= clock.now - CAST(:window AS bigint) * interval '1 microsecond'
    """,
)

# Of these, on PostgreSQL, the ones that no other replica folds just now: to count those too would
# be to ask for them again and again until it has done so.
FREE_OLD_DELTAS = Statement(
    sqlite=_OLD_DELTAS_SQLITE,
    postgresql=f"""
        WITH {CLOCK_POSTGRESQL}
        SELECT count(*), max(free.id)
          FROM (SELECT id, at FROM stat_deltas ORDER BY id LIMIT :n) AS first_ones
         CROSS JOIN clock
         CROSS JOIN LATERAL (SELECT id FROM stat_deltas
                              WHERE stat_deltas.id = first_ones.id
                                FOR UPDATE SKIP LOCKED) AS free
         WHERE at <= clock.now - CAST(:window AS bigint) * interval '1 microsecond'
    """,
)

# Each row is counted by whoever deletes it: on PostgreSQL a row of a smaller id may be committed
# between two statements, and another replica may fold at the same time.
FOLD = Statement(
    sqlite=(
        """
        INSERT INTO stats (
            queue, action, from_place, to_place, count, waited_seconds, ran_seconds)
        SELECT queue, action, from_place, to_place,
               sum(count), sum(waited_seconds), sum(ran_seconds)
          FROM stat_deltas
         WHERE id <= :last_id
         GROUP BY queue, action, from_place, to_place
        ON CONFLICT (queue, action, from_place, to_place) DO UPDATE
           SET count = count + excluded.count,
               waited_seconds = waited_seconds + excluded.waited_seconds,
               ran_seconds = ran_seconds + excluded.ran_seconds
        """,
        "DELETE FROM stat_deltas WHERE id <= :last_id",
    ),
    postgresql="""
        WITH old AS (
            SELECT id FROM stat_deltas WHERE id <= :last_id ORDER BY id FOR UPDATE SKIP LOCKED
        ),
             gone AS (
            DELETE FROM stat_deltas USING old WHERE stat_deltas.id = old.id RETURNING stat_deltas.*
        )
        INSERT INTO stats (
            queue, action, from_place, to_place, count, waited_seconds, ran_seconds)
        SELECT queue, action, from_place, to_place,
               sum(count), sum(waited_seconds), sum(ran_seconds)
          FROM gone
         GROUP BY queue, action, from_place, to_place
         ORDER BY queue, action, from_place, to_place
        ON CONFLICT (queue, action, from_place, to_place) DO UPDATE
           SET count = stats.count + excluded.count,
               waited_seconds = stats.waited_seconds + excluded.waited_seconds,
               ran_seconds = stats.ran_seconds + excluded.ran_seconds
    """,
)


class Count(NamedTuple):
    """How many jobs made this move."""

    queue: str
    action: str
    from_place: str
    to_place: str
    jobs: int


async def store_time(session: ReadSession) -> Micros:
    """What the store's clock says."""
    rows = await session.fetch(STORE_TIME)
    return rows[0][0]


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


async def old_deltas(session: ReadSession, window: int, limit: int) -> int:
    """How many of the first `limit` counts are older than `window` microseconds."""
    rows = await session.fetch(OLD_DELTAS, window=window, n=limit)
    return rows[0][0]


async def fold_deltas(session: WriteSession, window: int, limit: int) -> int:
    """Move counts older than `window` microseconds into the sums, at most `limit`; how many."""
    ((number, last_id),) = await session.fetch(FREE_OLD_DELTAS, window=window, n=limit)
    if number:
        await session.run(FOLD, last_id=last_id)
    return number
