"""A job as the store keeps it, and a job as a producer asks for it."""

from dataclasses import dataclass, field
from typing import NamedTuple

from compute_orchestrator.domain.lifecycle import Status
from compute_orchestrator.domain.retry import RetryPolicy
from compute_orchestrator.domain.values import JobId, JsonText, LeaseToken, Micros


class Job(NamedTuple):
    """One row of the store. The field order is the order in which every statement returns it.

    `lease_seconds` is the job's own wish; `held_seconds` the length of the lease that it is under.
    """

    id: JobId
    queue: str
    name: str
    payload: JsonText | None
    priority: int
    status: Status
    delayed: bool
    attempt: int
    retry_count: int
    max_retries: int
    release_count: int
    run_at: Micros
    lease_seconds: float | None
    held_seconds: float | None
    timeout_seconds: float | None
    retry_base_seconds: float
    retry_factor: float
    retry_max_seconds: float
    retry_jitter: float
    locked_by: str | None
    locked_at: Micros | None
    last_heartbeat_at: Micros | None
    lease_expires_at: Micros | None
    lease_token: LeaseToken | None
    cancel_requested: bool
    progress: JsonText | None
    checkpoint: JsonText | None
    result: JsonText | None
    error: JsonText | None
    tags: JsonText
    created_at: Micros
    updated_at: Micros
    finished_at: Micros | None

    @property
    def retry_policy(self) -> RetryPolicy:
        """How long to wait before the next attempt."""
        return RetryPolicy(
            base_seconds=self.retry_base_seconds,
            factor=self.retry_factor,
            max_seconds=self.retry_max_seconds,
            jitter=self.retry_jitter,
        )


@dataclass(frozen=True, slots=True)
class NewJob:
    """What a producer asks for. `run_at` and `run_in_seconds` are never both set."""

    name: str
    queue: str = "default"
    payload: JsonText | None = None
    priority: int = 0
    max_retries: int = 3
    lease_seconds: float | None = None
    timeout_seconds: float | None = None
    run_at: Micros | None = None
    run_in_seconds: float | None = None
    tags: tuple[str, ...] = ()
    retry: RetryPolicy = field(default_factory=RetryPolicy)
