"""Heartbeats: a lease goes on, progress and a checkpoint come in, a cancel request goes out."""

from collections.abc import Sequence

from compute_orchestrator.db.sessions import WriteSession
from compute_orchestrator.db.statements.heartbeat import heartbeat
from compute_orchestrator.db.statements.read import find_jobs
from compute_orchestrator.domain.errors import JobNotFound, LeaseLost, OrchestratorError
from compute_orchestrator.domain.job import Job
from compute_orchestrator.domain.lease import Heartbeat, LeaseState
from compute_orchestrator.domain.lifecycle import Status
from compute_orchestrator.services import ranks
from compute_orchestrator.services.coalescer import Coalescer, Operation
from compute_orchestrator.services.workers import WorkerService


class HeartbeatService:
    def __init__(self, coalescer: Coalescer, workers: WorkerService) -> None:
        self._coalescer = coalescer
        self._workers = workers
        self._beat = Operation(
            "heartbeat",
            ranks.HEARTBEAT,
            self._beat_batch,
            vital=True,
            subject=lambda beat: beat.key.job_id,
            size=lambda beat: len(beat.progress or "") + len(beat.checkpoint or ""),
        )

    async def beat(self, beat: Heartbeat) -> LeaseState:
        """Extend a lease. Raises LeaseLost, JobNotFound."""
        self._workers.seen(beat.worker_id)
        return await self._coalescer.submit(self._beat, beat)

    async def beat_many(
        self, worker_id: str, beats: Sequence[Heartbeat]
    ) -> Sequence[LeaseState | OrchestratorError]:
        """Extend many leases of one worker: to each its state or its own error."""
        self._workers.seen(worker_id)
        return await self._coalescer.submit_many(self._beat, beats)

    async def _beat_batch(
        self, session: WriteSession, beats: Sequence[Heartbeat]
    ) -> Sequence[LeaseState | OrchestratorError]:
        states = await heartbeat(session, beats)
        missed = [beat.key.job_id for beat in beats if beat.key not in states]
        jobs = await find_jobs(session, missed)
        return [
            states.get(beat.key) or lease_lost(beat, jobs.get(beat.key.job_id)) for beat in beats
        ]


def lease_lost(beat: Heartbeat, job: Job | None) -> OrchestratorError:
    """Why a heartbeat is refused: who holds the job now, or where it stands."""
    if job is None:
        return JobNotFound(beat.key.job_id)
    return lost_to(job)


def lost_to(job: Job, why: str | None = None) -> LeaseLost:
    """The lease of this job is somebody else's, or nobody's."""
    if job.status is not Status.RUNNING:
        return LeaseLost(why or f"The lease is over: job {job.id} is {job.status}.")
    return LeaseLost(
        why or f"Job {job.id} is under another lease, held by {job.locked_by}.",
        holder=job.locked_by,
        locked_at=job.locked_at,
        last_heartbeat_at=job.last_heartbeat_at,
    )
