"""Heartbeat: extend leases. Holds promise 3: a stale or foreign token matches no row."""

from collections.abc import Sequence

from compute_orchestrator.db.sessions import Statement, WriteSession
from compute_orchestrator.db.statements.rows import (
    CLOCK_POSTGRESQL,
    EXTENDED_LEASE_POSTGRESQL,
    EXTENDED_LEASE_SQLITE,
    HELD_POSTGRESQL,
    batch,
)
from compute_orchestrator.domain.lease import Heartbeat, LeaseKey, LeaseState

# Writes no indexed column.
HEARTBEAT = Statement(
    sqlite=f"""
        UPDATE jobs
           SET lease_expires_at = {EXTENDED_LEASE_SQLITE},
               last_heartbeat_at = :now,
               progress = coalesce(beat.progress, jobs.progress),
               checkpoint = coalesce(beat.checkpoint, jobs.checkpoint),
               updated_at = :now
          FROM (SELECT value ->> 'job_id' AS job_id, value ->> 'lease_token' AS lease_token,
                       value ->> 'progress' AS progress, value ->> 'checkpoint' AS checkpoint
                  FROM json_each(:beats)) AS beat
         WHERE jobs.id = beat.job_id
           AND jobs.lease_token = beat.lease_token
           AND jobs.status = 'running'
        RETURNING id, lease_token, lease_expires_at, cancel_requested
    """,
    postgresql=f"""
        WITH {CLOCK_POSTGRESQL},
             beat AS MATERIALIZED (
            SELECT its.*
              FROM (SELECT * FROM jsonb_to_recordset(CAST(:beats AS jsonb))
                                  AS b(job_id bigint, lease_token text,
                                       progress text, checkpoint text)
                     ORDER BY job_id) AS its
             CROSS JOIN LATERAL ({HELD_POSTGRESQL}) AS held
        )
        UPDATE jobs
           SET lease_expires_at = {EXTENDED_LEASE_POSTGRESQL},
               last_heartbeat_at = clock.now,
               progress = coalesce(CAST(beat.progress AS json), jobs.progress),
               checkpoint = coalesce(CAST(beat.checkpoint AS json), jobs.checkpoint),
               updated_at = clock.now
          FROM beat, clock
         WHERE jobs.id = beat.job_id
           AND jobs.lease_token = beat.lease_token
           AND jobs.status = 'running'
        RETURNING jobs.id, jobs.lease_token, jobs.lease_expires_at, jobs.cancel_requested
    """,
)


async def heartbeat(
    session: WriteSession, beats: Sequence[Heartbeat]
) -> dict[LeaseKey, LeaseState]:
    """Extend the leases that stand; a key that is missing in the answer holds none."""
    rows = await session.fetch(
        HEARTBEAT,
        beats=batch(
            {
                "job_id": beat.key.job_id,
                "lease_token": beat.key.lease_token,
                "progress": beat.progress,
                "checkpoint": beat.checkpoint,
            }
            for beat in beats
        ),
    )
    return {LeaseKey(row[0], row[1]): LeaseState(row[0], row[2], bool(row[3])) for row in rows}
