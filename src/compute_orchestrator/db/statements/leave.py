"""Leave: the way out of `running` once it was decided. Holds promise 3.

A failure, a release, an obeyed or forced cancel and a lost lease all end here: they differ in what
`domain.retry.decide` made of them, and that is written as it is, under the fence.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from compute_orchestrator.db.clock import seconds_between
from compute_orchestrator.db.sessions import Statement, WriteSession
from compute_orchestrator.db.statements.rows import (
    CLOCK_POSTGRESQL,
    LIGHT_JOB_COLUMNS,
    QUALIFIED_JOB_COLUMNS,
    batch,
    job_from,
    moment_postgresql,
)
from compute_orchestrator.domain.job import Job
from compute_orchestrator.domain.lifecycle import Status, Step
from compute_orchestrator.domain.retry import Decision
from compute_orchestrator.domain.values import JobId, JsonText


def _leave(columns: str) -> Statement:
    return Statement(
        sqlite=f"""
            UPDATE jobs
               SET status = leaving.status,
                   retry_count = leaving.retry_count,
                   release_count = leaving.release_count,
                   run_at = leaving.run_at,
                   delayed = leaving.status = 'queued' AND leaving.run_at > :now,
                   error = iif(leaving.action = 'fail', leaving.error, jobs.error),
                   locked_by = iif(leaving.status = 'queued', NULL, locked_by),
                   locked_at = iif(leaving.status = 'queued', NULL, locked_at),
                   last_heartbeat_at = iif(leaving.status = 'queued', NULL, last_heartbeat_at),
                   finished_at = iif(leaving.status = 'queued', NULL, :now),
                   lease_token = NULL, lease_expires_at = NULL, held_seconds = NULL,
                   request_id = NULL, request_slot = NULL,
                   updated_at = :now
              FROM (SELECT value ->> 'job_id' AS job_id, value ->> 'lease_token' AS lease_token,
                           value ->> 'status' AS status, value ->> 'retry_count' AS retry_count,
                           value ->> 'release_count' AS release_count, value ->> 'run_at' AS run_at,
                           value ->> 'action' AS action, value ->> 'error' AS error
                      FROM json_each(:leaving)) AS leaving
             WHERE jobs.id = leaving.job_id
               AND jobs.lease_token = leaving.lease_token
               AND jobs.status = 'running'
            RETURNING {columns}
        """,
        # The rows are locked: they were read for this decision in the same transaction.
        postgresql=f"""
            WITH {CLOCK_POSTGRESQL},
                 leaving AS (
                SELECT job_id, lease_token, status, retry_count, release_count, action, error,
                       {moment_postgresql("its.run_at")} AS run_at
                  FROM jsonb_to_recordset(CAST(:leaving AS jsonb))
                       AS its(job_id bigint, lease_token text, status text, retry_count integer,
                              release_count integer, run_at bigint, action text, error text)
            )
            UPDATE jobs
               SET status = leaving.status,
                   retry_count = leaving.retry_count,
                   release_count = leaving.release_count,
                   run_at = leaving.run_at,
                   delayed = CASE WHEN leaving.status = 'queued' AND leaving.run_at > clock.now
                                  THEN 1 ELSE 0 END,
                   error = CASE WHEN leaving.action = 'fail' THEN CAST(leaving.error AS json)
                                ELSE jobs.error END,
                   locked_by = CASE WHEN leaving.status <> 'queued' THEN locked_by END,
                   locked_at = CASE WHEN leaving.status <> 'queued' THEN locked_at END,
                   last_heartbeat_at = CASE WHEN leaving.status <> 'queued'
                                            THEN last_heartbeat_at END,
                   finished_at = CASE WHEN leaving.status <> 'queued' THEN clock.now END,
                   lease_token = NULL, lease_expires_at = NULL, held_seconds = NULL,
                   request_id = NULL, request_slot = NULL,
                   updated_at = clock.now
              FROM leaving, clock
             WHERE jobs.id = leaving.job_id
               AND jobs.lease_token = leaving.lease_token
               AND jobs.status = 'running'
            RETURNING {columns}
        """,
    )


LEAVE = _leave(QUALIFIED_JOB_COLUMNS)
LEAVE_UNSEEN = _leave(LIGHT_JOB_COLUMNS)


@dataclass(frozen=True, slots=True)
class Leaving:
    """A running job as it was read, what was decided about it, and who did it."""

    job: Job
    decision: Decision
    actor: str
    error: JsonText | None = None


async def leave_running(
    session: WriteSession, leaving: Sequence[Leaving], *, unseen: bool = False
) -> dict[JobId, Job]:
    """Write decisions about running jobs; the jobs as they stand afterwards. Those that are shown
    to nobody come back `unseen`, without their payloads and what else is only shown.
    """
    if not leaving:
        return {}
    statement = LEAVE_UNSEEN if unseen else LEAVE
    rows = await session.fetch(statement, leaving=batch(map(_item, leaving)))
    left = {job.id: job for job in map(job_from, rows)}
    session.record([_step(one, left[one.job.id]) for one in leaving if one.job.id in left])
    return left


def _item(leaving: Leaving) -> dict[str, object]:
    decision = leaving.decision
    return {
        "job_id": leaving.job.id,
        "lease_token": leaving.job.lease_token,
        "action": decision.action,
        "status": decision.status,
        "retry_count": decision.retry_count,
        "release_count": decision.release_count,
        "run_at": decision.run_at,
        "error": leaving.error,
    }


def _step(leaving: Leaving, after: Job) -> Step:
    before = leaving.job
    return Step(
        job_id=before.id,
        queue=before.queue,
        action=leaving.decision.action,
        from_status=Status.RUNNING,
        to_status=after.status,
        actor=leaving.actor,
        at=after.updated_at,
        attempt=before.attempt,
        reason=leaving.decision.reason,
        lease_token=before.lease_token,
        delayed_to=after.delayed,
        ran_seconds=seconds_between(before.locked_at or after.updated_at, after.updated_at),
    )
