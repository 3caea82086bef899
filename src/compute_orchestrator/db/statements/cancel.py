"""Cancel: a waiting job ends, a running one is marked. A forced cancel goes through leave.py."""

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

CANCEL_QUEUED = Statement(
    sqlite=f"""
        UPDATE jobs
           SET status = 'cancelled', delayed = 0, finished_at = :now, updated_at = :now
         WHERE id IN (SELECT value FROM json_each(:ids)) AND status = 'queued'
        RETURNING {JOB_COLUMNS}
    """,
    postgresql=f"""
        WITH {CLOCK_POSTGRESQL}
        UPDATE jobs
           SET status = 'cancelled', delayed = 0, finished_at = clock.now, updated_at = clock.now
          FROM clock
         WHERE id IN ({IDS_POSTGRESQL}) AND status = 'queued'
        RETURNING {JOB_COLUMNS}
    """,
)

MARK_RUNNING = Statement(
    sqlite=f"""
        UPDATE jobs
           SET cancel_requested = 1, updated_at = :now
         WHERE id IN (SELECT value FROM json_each(:ids))
           AND status = 'running' AND cancel_requested = 0
        RETURNING {JOB_COLUMNS}
    """,
    postgresql=f"""
        WITH {CLOCK_POSTGRESQL}
        UPDATE jobs
           SET cancel_requested = 1, updated_at = clock.now
          FROM clock
         WHERE id IN ({IDS_POSTGRESQL}) AND status = 'running' AND cancel_requested = 0
        RETURNING {JOB_COLUMNS}
    """,
)


async def cancel_queued(session: WriteSession, jobs: Sequence[Job]) -> dict[JobId, Job]:
    """End jobs that wait, given as they were read."""
    if not jobs:
        return {}
    before = {job.id: job for job in jobs}
    rows = await session.fetch(CANCEL_QUEUED, ids=batch(before))
    cancelled = {job.id: job for job in map(job_from, rows)}
    session.record([_step(before[job.id], job) for job in cancelled.values()])
    return cancelled


async def mark_running(session: WriteSession, jobs: Sequence[Job]) -> dict[JobId, Job]:
    """Ask the holders of running jobs to stop. No change of status, so no step."""
    if not jobs:
        return {}
    rows = await session.fetch(MARK_RUNNING, ids=batch(job.id for job in jobs))
    return {job.id: job for job in map(job_from, rows)}


def _step(before: Job, after: Job) -> Step:
    return Step(
        job_id=after.id,
        queue=after.queue,
        action=Action.CANCEL,
        from_status=Status.QUEUED,
        to_status=Status.CANCELLED,
        actor=OPERATOR,
        at=after.updated_at,
        attempt=after.attempt,
        delayed_from=before.delayed,
    )
