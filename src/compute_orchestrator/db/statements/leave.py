"""Leave: the way out of `running` once it was decided. Holds promise 3.

A failure, a release, an obeyed or forced cancel and a lost lease all end here: they differ in what
`domain.retry.decide` made of them, and that is written as it is, under the fence.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from compute_orchestrator.db.clock import seconds_between
from compute_orchestrator.db.sessions import Statement, WriteSession
from compute_orchestrator.db.statements.rows import JOB_COLUMNS, batch, job_from
from compute_orchestrator.domain.job import Job
from compute_orchestrator.domain.lifecycle import Status, Step
from compute_orchestrator.domain.retry import Decision
from compute_orchestrator.domain.values import JobId, JsonText

LEAVE = Statement(
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
        RETURNING {JOB_COLUMNS}
    """,
)


@dataclass(frozen=True, slots=True)
class Leaving:
    """A running job as it was read, what was decided about it, and who did it."""

    job: Job
    decision: Decision
    actor: str
    error: JsonText | None = None


async def leave_running(session: WriteSession, leaving: Sequence[Leaving]) -> dict[JobId, Job]:
    """Write decisions about running jobs; the jobs as they stand afterwards."""
    if not leaving:
        return {}
    rows = await session.fetch(LEAVE, leaving=batch(map(_item, leaving)))
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
