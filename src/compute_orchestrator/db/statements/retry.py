"""Retry: an operator takes a final job back to the queue, with every budget fresh."""

from collections.abc import Sequence

from compute_orchestrator.db.sessions import Statement, WriteSession
from compute_orchestrator.db.statements.rows import (
    CLOCK_POSTGRESQL,
    IDS_POSTGRESQL,
    JOB_COLUMNS,
    batch,
    job_from,
)
from compute_orchestrator.domain.job import Job
from compute_orchestrator.domain.lifecycle import Action, Status, Step
from compute_orchestrator.domain.values import OPERATOR, JobId

# `attempt`, `checkpoint` and `error` are kept.
RETRY = Statement(
    sqlite=f"""
        UPDATE jobs
           SET status = 'queued', delayed = 0, run_at = :now,
               retry_count = 0, release_count = 0,
               cancel_requested = 0, result = NULL, progress = NULL, finished_at = NULL,
               locked_by = NULL, locked_at = NULL, last_heartbeat_at = NULL,
               updated_at = :now
         WHERE id IN (SELECT value FROM json_each(:ids)) AND finished_at IS NOT NULL
        RETURNING {JOB_COLUMNS}
    """,
    postgresql=f"""
        WITH {CLOCK_POSTGRESQL}
        UPDATE jobs
           SET status = 'queued', delayed = 0, run_at = clock.now,
               retry_count = 0, release_count = 0,
               cancel_requested = 0, result = NULL, progress = NULL, finished_at = NULL,
               locked_by = NULL, locked_at = NULL, last_heartbeat_at = NULL,
               updated_at = clock.now
          FROM clock
         WHERE id IN ({IDS_POSTGRESQL}) AND finished_at IS NOT NULL
        RETURNING {JOB_COLUMNS}
    """,
)


async def retry_final(session: WriteSession, jobs: Sequence[Job]) -> dict[JobId, Job]:
    """Queue final jobs again, given as they were read."""
    if not jobs:
        return {}
    before = {job.id: job for job in jobs}
    rows = await session.fetch(RETRY, ids=batch(before))
    retried = {job.id: job for job in map(job_from, rows)}
    session.record([_step(before[job.id].status, job) for job in retried.values()])
    return retried


def _step(from_status: Status, after: Job) -> Step:
    return Step(
        job_id=after.id,
        queue=after.queue,
        action=Action.RETRY,
        from_status=from_status,
        to_status=Status.QUEUED,
        actor=OPERATOR,
        at=after.updated_at,
        attempt=after.attempt,
    )
