"""Operations: what an operator does to a job. Each may be repeated without a second effect."""

from collections.abc import Sequence
from dataclasses import dataclass

from compute_orchestrator.db.sessions import WriteSession
from compute_orchestrator.db.statements.cancel import cancel_queued, mark_running
from compute_orchestrator.db.statements.leave import Leaving, leave_running
from compute_orchestrator.db.statements.read import find_jobs_to_change
from compute_orchestrator.db.statements.retry import retry_final
from compute_orchestrator.domain.errors import (
    InvalidTransition,
    JobNotFound,
    OrchestratorError,
)
from compute_orchestrator.domain.job import Job
from compute_orchestrator.domain.lifecycle import Action, Status
from compute_orchestrator.domain.retry import Decision
from compute_orchestrator.domain.values import OPERATOR, JobId
from compute_orchestrator.services import ranks
from compute_orchestrator.services.coalescer import Coalescer, Operation


@dataclass(frozen=True, slots=True)
class CancelCall:
    job_id: JobId
    force: bool = False


@dataclass(frozen=True, slots=True)
class RetryCall:
    job_id: JobId
    again: bool = False


class OperationService:
    def __init__(self, coalescer: Coalescer) -> None:
        self._coalescer = coalescer
        self._cancel = Operation(
            "cancel", ranks.OPERATE, self._cancel_batch, subject=lambda call: call.job_id
        )
        self._retry = Operation(
            "retry", ranks.OPERATE, self._retry_batch, subject=lambda call: call.job_id
        )

    async def cancel(self, call: CancelCall) -> Job:
        """End a waiting job, or ask the holder of a running one to stop (`force`: end it now).

        Raises JobNotFound, and InvalidTransition for a job that ended otherwise.
        """
        return await self._coalescer.submit(self._cancel, call)

    async def _cancel_batch(
        self, session: WriteSession, calls: Sequence[CancelCall]
    ) -> Sequence[Job | OrchestratorError]:
        jobs = await find_jobs_to_change(session, [call.job_id for call in calls])
        found = [(call, jobs[call.job_id]) for call in calls if call.job_id in jobs]
        queued = [job for _, job in found if job.status is Status.QUEUED]
        running = [(call, job) for call, job in found if job.status is Status.RUNNING]
        jobs |= await cancel_queued(session, queued)
        jobs |= await mark_running(session, [job for call, job in running if not call.force])
        jobs |= await leave_running(session, [_forced(job) for call, job in running if call.force])
        return [_cancelled(call, jobs.get(call.job_id)) for call in calls]

    async def retry(self, call: RetryCall) -> Job:
        """Queue a final job again (`again`: also one that succeeded).

        Raises JobNotFound, and InvalidTransition for a job that runs or may not be retried.
        """
        return await self._coalescer.submit(self._retry, call)

    async def _retry_batch(
        self, session: WriteSession, calls: Sequence[RetryCall]
    ) -> Sequence[Job | OrchestratorError]:
        jobs = await find_jobs_to_change(session, [call.job_id for call in calls])
        refused = {call.job_id: _refusal(call, jobs.get(call.job_id)) for call in calls}
        final = [
            job
            for job in jobs.values()
            if refused[job.id] is None and job.status is not Status.QUEUED
        ]
        jobs |= await retry_final(session, final)
        return [refused[call.job_id] or jobs[call.job_id] for call in calls]


def _forced(job: Job) -> Leaving:
    decision = Decision(
        Action.CANCEL, Status.CANCELLED, job.retry_count, job.release_count, job.run_at
    )
    return Leaving(job, decision, OPERATOR)


def _cancelled(call: CancelCall, job: Job | None) -> Job | OrchestratorError:
    if job is None:
        return JobNotFound(call.job_id)
    if job.status in (Status.RUNNING, Status.CANCELLED):
        return job
    return InvalidTransition(
        f"Job {job.id} is {job.status} and can't be cancelled.", status=job.status
    )


def _refusal(call: RetryCall, job: Job | None) -> OrchestratorError | None:
    if job is None:
        return JobNotFound(call.job_id)
    if job.status is Status.RUNNING:
        return InvalidTransition(f"Job {job.id} is running.", status=job.status)
    if job.status is Status.SUCCEEDED and not call.again:
        return InvalidTransition(
            f"Job {job.id} succeeded; ?again=true runs it once more.", status=job.status
        )
    return None
