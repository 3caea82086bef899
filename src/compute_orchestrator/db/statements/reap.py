"""Reap: the leases that ran out, and the watch that keeps promise 9.

A lease is taken only when the reaper has been awake, without a gap in its passes, for as long as
the lease is: whatever stopped it may have stopped the heartbeats too.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from compute_orchestrator.db.sessions import ReadSession, Statement, WriteSession
from compute_orchestrator.db.statements.report import Held
from compute_orchestrator.db.statements.rows import JOB_COLUMNS, job_from
from compute_orchestrator.domain.values import Micros

ANY_RUNNING = Statement(
    sqlite="SELECT EXISTS (SELECT 1 FROM jobs WHERE status = 'running')",
)

# A gap is a last pass that lies in the future, or longer ago than it may.
PASS = Statement(
    sqlite="""
        INSERT INTO watch (id, since, last_pass_at) VALUES (1, :now, :now)
        ON CONFLICT (id) DO UPDATE
           SET since = iif(:now - last_pass_at BETWEEN 0 AND :longest_gap, since, :now),
               last_pass_at = :now
        RETURNING since
    """,
)

EXPIRED = Statement(
    sqlite=f"""
        SELECT :now AS store_now, {JOB_COLUMNS}
          FROM jobs
         WHERE status = 'running'
           AND lease_expires_at <= :now
           AND :since + CAST(round(held_seconds * 1000000) AS INTEGER) <= :now
         ORDER BY id LIMIT :n
    """,
)


@dataclass(frozen=True, slots=True)
class Watch:
    """Since when the reaper has been awake without a gap."""

    since: Micros


async def any_running(session: ReadSession) -> bool:
    """Whether there is anything to watch."""
    rows = await session.fetch(ANY_RUNNING)
    return bool(rows[0][0])


async def note_pass(session: WriteSession, longest_gap: int) -> Watch:
    """Write down this pass. `longest_gap` in microseconds."""
    rows = await session.fetch(PASS, longest_gap=longest_gap)
    return Watch(rows[0][0])


async def expired_leases(session: WriteSession, watch: Watch, limit: int) -> Sequence[Held]:
    """At most `limit` running jobs whose lease ran out under the eyes of the reaper."""
    rows = await session.fetch(EXPIRED, since=watch.since, n=limit)
    return [Held(job_from(row[1:]), row[0]) for row in rows]
