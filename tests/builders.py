"""One builder per noun, with valid defaults: a test names only what it is about."""

from typing import Any

from compute_orchestrator.domain.job import Job, NewJob
from compute_orchestrator.domain.lease import ClaimRequest, Heartbeat, LeaseKey
from compute_orchestrator.domain.lifecycle import Status
from compute_orchestrator.domain.report import Report, ReportedOutcome, Succeeded
from compute_orchestrator.domain.retry import RetryPolicy
from compute_orchestrator.domain.values import JobId, JsonText, LeaseToken, Micros
from compute_orchestrator.services.jobs import CreateCall
from tests.clocks import START


def new_job(name: str = "resize", **wishes: Any) -> NewJob:
    """What a producer asks for."""
    return NewJob(name, **wishes)


def create_call(name: str = "resize", *, key: str | None = None, **wishes: Any) -> CreateCall:
    """A create, with a key or without."""
    return CreateCall([new_job(name, **wishes)], key, body_hash=f"hash of {name}")


def running_job(**changes: Any) -> Job:
    """A job under its first lease, as the store would read it."""
    policy = RetryPolicy()
    return Job(
        id=JobId(1),
        queue="default",
        name="resize",
        payload=None,
        priority=0,
        status=Status.RUNNING,
        delayed=False,
        attempt=1,
        retry_count=0,
        max_retries=3,
        release_count=0,
        run_at=START,
        lease_seconds=None,
        held_seconds=60.0,
        timeout_seconds=None,
        retry_base_seconds=policy.base_seconds,
        retry_factor=policy.factor,
        retry_max_seconds=policy.max_seconds,
        retry_jitter=policy.jitter,
        locked_by="w",
        locked_at=START,
        last_heartbeat_at=START,
        lease_expires_at=Micros(START + 60_000_000),
        lease_token=LeaseToken("token"),
        cancel_requested=False,
        progress=None,
        checkpoint=None,
        result=None,
        error=None,
        tags=JsonText("[]"),
        created_at=START,
        updated_at=START,
        finished_at=None,
    )._replace(**changes)


def claim_request(worker_id: str = "w", *queues: str, **wishes: Any) -> ClaimRequest:
    """A claim of one job, from `default` unless queues are named."""
    return ClaimRequest(worker_id, queues or ("default",), **wishes)


def lease_key(job: Job) -> LeaseKey:
    """What proves the lease that this job is under."""
    assert job.lease_token is not None
    return LeaseKey(job.id, job.lease_token)


def heartbeat(job: Job, **signs: Any) -> Heartbeat:
    """A sign of life of the job's holder."""
    return Heartbeat(lease_key(job), job.locked_by or "w", **signs)


def report(job: Job, outcome: ReportedOutcome | None = None, **more: Any) -> Report:
    """How the attempt under the job's lease ended; well, unless an outcome is named."""
    return Report(lease_key(job), job.locked_by or "w", outcome or Succeeded(), **more)
