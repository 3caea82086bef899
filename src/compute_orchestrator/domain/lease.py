"""Leases: what a claim asks for, what a holder proves, how long it lasts."""

from dataclasses import dataclass

from compute_orchestrator.domain.values import JobId, JsonText, LeaseToken, Micros


@dataclass(frozen=True, slots=True)
class LeaseKey:
    """What proves a lease: the job and the token of this one claim."""

    job_id: JobId
    lease_token: LeaseToken


@dataclass(frozen=True, slots=True)
class ClaimRequest:
    """One worker asks for up to `limit` jobs.

    `queues` has no duplicates; `request_id` makes it repeatable.
    """

    worker_id: str
    queues: tuple[str, ...] = ("default",)
    lease_seconds: float | None = None
    request_id: str | None = None
    limit: int = 1


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """A sign of life. Absent progress and checkpoint leave what is stored."""

    key: LeaseKey
    worker_id: str
    progress: JsonText | None = None
    checkpoint: JsonText | None = None


@dataclass(frozen=True, slots=True)
class LeaseState:
    """What a heartbeat brings back."""

    job_id: JobId
    lease_expires_at: Micros
    cancel_requested: bool
