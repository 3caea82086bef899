"""Reap: the leases that ran out, and the watch that keeps promise 9.

A lease is taken only when the reaper has been awake, without a gap in its passes, for as long as
the lease is: whatever stopped it may have stopped the heartbeats too.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from compute_orchestrator.db.sessions import ReadSession, Statement, WriteSession
from compute_orchestrator.db.statements.report import Held
from compute_orchestrator.db.statements.rows import (
    CLOCK_POSTGRESQL,
    LIGHT_JOB_COLUMNS,
    job_from,
)
from compute_orchestrator.domain.values import Micros

# On PostgreSQL the smallest id: it is first in the index of what runs. To find any job at all the
# planner goes through the table where it believes that many run.
ANY_RUNNING = Statement(
    sqlite="SELECT EXISTS (SELECT 1 FROM jobs WHERE status = 'running')",
    postgresql="SELECT (SELECT min(id) FROM jobs WHERE status = 'running') IS NOT NULL",
)

# A gap is a last pass that lies in the future, or longer ago than it may. On PostgreSQL no row
# comes back where another replica makes its pass just now (an INSERT that meets its row would wait
# for it); and the time is read under the lock, or the pass that another made in between would lie
# in the future.
PASS = Statement(
    sqlite="""
        INSERT INTO watch (id, since, last_pass_at) VALUES (1, :now, :now)
        ON CONFLICT (id) DO UPDATE
           SET since = iif(:now - last_pass_at BETWEEN 0 AND :longest_gap, since, :now),
               last_pass_at = :now
        RETURNING since, since = last_pass_at, last_pass_at
    """,
    postgresql=f"""
        WITH {CLOCK_POSTGRESQL},
             first AS (
            INSERT INTO watch (id, since, last_pass_at)
            SELECT 1, clock.now, clock.now FROM clock
             WHERE NOT EXISTS (SELECT 1 FROM watch)
            ON CONFLICT DO NOTHING
            RETURNING since, last_pass_at
        ),
             mine AS MATERIALIZED (
            SELECT free.id, coalesce(CAST(:now AS timestamptz), clock_timestamp()) AS now
              FROM (SELECT id FROM watch WHERE id = 1 FOR UPDATE SKIP LOCKED) AS free
        ),
             moved AS (
            UPDATE watch
               SET since = CASE WHEN mine.now - last_pass_at
                                     BETWEEN interval '0'
                                         AND CAST(:longest_gap AS bigint) * interval '1 microsecond'
                                THEN since ELSE mine.now END,
                   last_pass_at = mine.now
              FROM mine
             WHERE watch.id = mine.id
            RETURNING since, last_pass_at
        )
        SELECT since, since = last_pass_at, last_pass_at FROM first
        UNION ALL
        SELECT since, since = last_pass_at, last_pass_at FROM moved
    """,
)

# A lease that ends later than its length from now was given before the clock was set back, and
# would keep a dead worker's job for as long as that step was.
PULL_IN = Statement(
    sqlite="""
        UPDATE jobs
           SET lease_expires_at = :now + CAST(round(held_seconds * 1000000) AS INTEGER),
               locked_at = min(locked_at, :now)
         WHERE status = 'running'
           AND lease_expires_at > :now + CAST(round(held_seconds * 1000000) AS INTEGER)
    """,
    postgresql=f"""
        WITH {CLOCK_POSTGRESQL},
             parked AS (
            SELECT jobs.id FROM jobs CROSS JOIN clock
             WHERE status = 'running'
               AND lease_expires_at > clock.now + held_seconds * interval '1 second'
             ORDER BY jobs.id
               FOR UPDATE OF jobs
        )
        UPDATE jobs
           SET lease_expires_at = clock.now + held_seconds * interval '1 second',
               locked_at = least(locked_at, clock.now)
          FROM parked, clock
         WHERE jobs.id = parked.id AND status = 'running'
    """,
)

EXPIRED = Statement(
    sqlite=f"""
        SELECT :now AS store_now, {LIGHT_JOB_COLUMNS}
          FROM jobs
         WHERE status = 'running'
           AND lease_expires_at <= :now
           AND :since + CAST(round(held_seconds * 1000000) AS INTEGER) <= :now
         ORDER BY id LIMIT :n
    """,
    # At the time of the pass, not of this statement: in between the network may have stood still,
    # and the heartbeats with it. A job that a heartbeat or a report holds just now is not lost.
    postgresql=f"""
        WITH {CLOCK_POSTGRESQL}
        SELECT clock.now AS store_now, {LIGHT_JOB_COLUMNS}
          FROM jobs CROSS JOIN clock
         WHERE status = 'running'
           AND lease_expires_at <= CAST(:passed_at AS timestamptz)
           AND CAST(:since AS timestamptz) + held_seconds * interval '1 second'
               <= CAST(:passed_at AS timestamptz)
         ORDER BY id LIMIT :n
           FOR UPDATE OF jobs SKIP LOCKED
    """,
)


@dataclass(frozen=True, slots=True)
class Watch:
    """Since when the reaper has been awake without a gap; `anew` where that begins just now, in the
    pass that was made at `passed_at`.
    """

    since: Micros
    anew: bool
    passed_at: Micros


async def any_running(session: ReadSession) -> bool:
    """Whether there is anything to watch."""
    rows = await session.fetch(ANY_RUNNING)
    return bool(rows[0][0])


async def note_pass(session: WriteSession, longest_gap: int) -> Watch | None:
    """Write down this pass; None where another replica makes one now. The gap in microseconds."""
    rows = await session.fetch(PASS, longest_gap=longest_gap)
    return Watch(rows[0][0], bool(rows[0][1]), rows[0][2]) if rows else None


async def pull_in_leases(session: WriteSession) -> None:
    """Shorten leases that end later than their length from now: the clock was set back."""
    await session.run(PULL_IN)


async def expired_leases(session: WriteSession, watch: Watch, limit: int) -> Sequence[Held]:
    """At most `limit` running jobs whose lease ran out under the eyes of the reaper; without their
    payloads and what else is only shown.
    """
    rows = await session.fetch(EXPIRED, since=watch.since, passed_at=watch.passed_at, n=limit)
    return [Held(job_from(row[1:]), row[0]) for row in rows]
