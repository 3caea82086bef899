"""Reports: what came of an attempt. Repeating one that was taken answers the job as it stands."""

import json
import random
from collections.abc import Sequence
from dataclasses import replace

from compute_orchestrator.db.sessions import WriteSession
from compute_orchestrator.db.statements.leave import Leaving, leave_running
from compute_orchestrator.db.statements.read import find_jobs
from compute_orchestrator.db.statements.report import (
    Held,
    LeftBefore,
    Success,
    held_jobs,
    left_before,
    succeed,
)
from compute_orchestrator.domain.errors import (
    InvalidTransition,
    JobNotFound,
    OrchestratorError,
)
from compute_orchestrator.domain.job import Job
from compute_orchestrator.domain.lease import LeaseKey
from compute_orchestrator.domain.lifecycle import Action
from compute_orchestrator.domain.report import DecidedOutcome, Report, Succeeded
from compute_orchestrator.domain.retry import Failed, Obeyed, Released, decide
from compute_orchestrator.domain.values import SERVER, JsonText
from compute_orchestrator.services import ranks
from compute_orchestrator.services.coalescer import Coalescer, Operation
from compute_orchestrator.services.heartbeats import lost_to
from compute_orchestrator.services.workers import WorkerService

CLIENT_GONE = "client-gone"
"""The reason of a release by the server: the claim's connection closed before its answer began."""


def _size(report: Report) -> int:
    result = report.outcome.result if isinstance(report.outcome, Succeeded) else None
    return len(result or "") + len(report.error or "")


class ReportService:
    def __init__(self, coalescer: Coalescer, workers: WorkerService) -> None:
        self._coalescer = coalescer
        self._workers = workers
        self._report = Operation(
            "report",
            ranks.REPORT,
            self._report_batch,
            vital=True,
            subject=lambda report: report.key.job_id,
            size=_size,
        )

    async def report(self, report: Report) -> Job:
        """Take a report. Raises LeaseLost, InvalidTransition, JobNotFound."""
        self._workers.seen(report.worker_id)
        return await self._coalescer.submit(self._report, report)

    async def report_many(
        self, worker_id: str, reports: Sequence[Report]
    ) -> Sequence[Job | OrchestratorError]:
        """Take many reports of one worker: to each the job or its own error."""
        self._workers.seen(worker_id)
        return await self._coalescer.submit_many(self._report, reports)

    async def release_by_server(self, key: LeaseKey) -> Job:
        """Hand a job back for a client that vanished; not counted. Raises as `report`."""
        outcome = Released(counted=False, reason=CLIENT_GONE)
        return await self._coalescer.submit(self._report, Report(key, SERVER, outcome))

    async def _report_batch(
        self, session: WriteSession, reports: Sequence[Report]
    ) -> Sequence[Job | OrchestratorError]:
        answers: dict[LeaseKey, Job | OrchestratorError] = {}
        await self._take_successes(session, reports, answers)
        await self._take_decided(session, reports, answers)
        missed = [report for report in reports if report.key not in answers]
        if missed:
            await _look_up(session, missed, answers)
        return [answers[report.key] for report in reports]

    async def _take_successes(
        self,
        session: WriteSession,
        reports: Sequence[Report],
        answers: dict[LeaseKey, Job | OrchestratorError],
    ) -> None:
        successes = [
            Success(report.key, report.worker_id, report.outcome.result)
            for report in reports
            if isinstance(report.outcome, Succeeded)
        ]
        if successes:
            others = [report.key for report in reports if not isinstance(report.outcome, Succeeded)]
            finished = await succeed(session, successes, beside=others)
            answers.update(
                (success.key, finished[success.key.job_id])
                for success in successes
                if success.key.job_id in finished
            )

    async def _take_decided(
        self,
        session: WriteSession,
        reports: Sequence[Report],
        answers: dict[LeaseKey, Job | OrchestratorError],
    ) -> None:
        to_decide = [
            (report, report.outcome)
            for report in reports
            if not isinstance(report.outcome, Succeeded)
        ]
        if not to_decide:
            return
        held = await held_jobs(session, [report.key for report, _ in to_decide])
        leaving: dict[LeaseKey, Leaving] = {}
        for report, outcome in to_decide:
            if report.key in held:
                decided = _decide(report, outcome, held[report.key])
                if isinstance(decided, Leaving):
                    leaving[report.key] = decided
                else:
                    answers[report.key] = decided
        left = await leave_running(session, list(leaving.values()))
        answers.update((key, left[key.job_id]) for key in leaving if key.job_id in left)


def _decide(report: Report, outcome: DecidedOutcome, held: Held) -> Leaving | InvalidTransition:
    if isinstance(outcome, Obeyed) and not held.job.cancel_requested:
        return InvalidTransition(
            f"Nobody asked to cancel job {held.job.id}; release it or report a failure.",
            status=held.job.status,
        )
    if isinstance(outcome, Failed):
        outcome = replace(outcome, reason=short_reason(report.error))
    decision = decide(held.job, outcome, held.now, random.random())  # noqa: S311 - jitter
    return Leaving(held.job, decision, report.worker_id, report.error)


async def _look_up(
    session: WriteSession,
    reports: Sequence[Report],
    answers: dict[LeaseKey, Job | OrchestratorError],
) -> None:
    """Answer reports that match no running lease from the trail."""
    left = await left_before(session, [report.key for report in reports])
    jobs = await find_jobs(session, [report.key.job_id for report in reports])
    for report in reports:
        job = jobs.get(report.key.job_id)
        if job is None:
            answers[report.key] = JobNotFound(report.key.job_id)
        else:
            answers[report.key] = _repeated(report, left.get(report.key), job)


def _repeated(report: Report, left: LeftBefore | None, job: Job) -> Job | OrchestratorError:
    if left is None:
        return lost_to(job)
    by_server = left.action is Action.RELEASE and left.reason == CLIENT_GONE
    if by_server or left.action in (Action.LOSE, Action.CANCEL):
        why = f"The lease was ended by the {left.actor}; job {job.id} is {job.status}."
        return lost_to(job, why)
    if left.action is not report.action:
        return InvalidTransition(
            f"This lease was ended before by {left.action}; job {job.id} is {job.status}.",
            status=job.status,
        )
    return job


REASON_LENGTH = 300


def short_reason(error: JsonText | None) -> str | None:
    """What the trail keeps of an error: its type and message, cut."""
    if error is None:
        return None
    parts = json.loads(error)
    words = [parts[name] for name in ("type", "message") if isinstance(parts.get(name), str)]
    return ": ".join(words)[:REASON_LENGTH] or None
