"""What the server answers, typed. Tolerant: unknown fields are kept, unknown statuses pass."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from compute_orchestrator.client.errors import Problem, problem_of

Json = Any  # any JSON value, as the protocol means it


class Status(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    EXHAUSTED = "exhausted"
    CANCELLED = "cancelled"


FINAL = frozenset({Status.SUCCEEDED, Status.FAILED, Status.EXHAUSTED, Status.CANCELLED})

# Left to right: a plain string would win over the enum by being the closer match.
AnyStatus = Annotated[Status | str, Field(union_mode="left_to_right")]


class Answer(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True)


class RetryPolicy(Answer):
    """Backoff: min(base * factor^(n-1), max) * (1 + jitter * u) seconds before retry n."""

    base_seconds: float = 1
    factor: float = 2
    max_seconds: float = 3600
    jitter: float = 0.2


class Job(Answer):
    id: int
    queue: str
    name: str
    status: AnyStatus
    payload: Json = None
    priority: int = 0
    attempt: int = 0
    retry_count: int = 0
    max_retries: int = 0
    release_count: int = 0
    run_at: datetime | None = None
    lease_seconds: float | None = None
    timeout_seconds: float | None = None
    retry: RetryPolicy | None = None
    locked_by: str | None = None
    locked_at: datetime | None = None
    last_heartbeat_at: datetime | None = None
    lease_expires_at: datetime | None = None
    cancel_requested: bool = False
    progress: Json = None
    checkpoint: Json = None
    result: Json = None
    error: dict[str, Any] | None = None
    tags: list[str] = []
    created_at: datetime | None = None
    updated_at: datetime | None = None
    finished_at: datetime | None = None

    @property
    def is_final(self) -> bool:
        """Whether only an operator can still move it. A status unknown here counts as not."""
        return self.status in FINAL


class ClaimedJob(Job):
    """A job and the lease on it."""

    lease_token: str = Field(repr=False)
    locked_by: str  # pyright: ignore[reportGeneralTypeIssues, reportIncompatibleVariableOverride] - a lease has a holder
    locked_at: datetime  # pyright: ignore[reportGeneralTypeIssues, reportIncompatibleVariableOverride] - a lease has a start
    lease_expires_at: datetime  # pyright: ignore[reportGeneralTypeIssues, reportIncompatibleVariableOverride] - a lease has an end

    @property
    def held_seconds(self) -> float:
        """The lease's length when this answer was made. Both times are the server's."""
        start = max(self.locked_at, self.last_heartbeat_at or self.locked_at)
        return (self.lease_expires_at - start).total_seconds()


class JobList(Answer):
    """The jobs of a bulk create, in the order in which they were given."""

    jobs: list[Job]


class JobPage(Answer):
    jobs: list[Job]
    next_cursor: str | None = None


class Event(Answer):
    """One change of a job's status."""

    id: int
    action: str
    from_status: AnyStatus | None = None
    to_status: AnyStatus | None = None
    actor: str | None = None
    reason: str | None = None
    attempt: int = 0
    at: datetime


class EventPage(Answer):
    events: list[Event]
    next_cursor: str | None = None


class LeaseState(Answer):
    """What a heartbeat brings back."""

    id: int
    lease_expires_at: datetime
    cancel_requested: bool = False


class ItemAnswer(Answer):
    """What one item of a sync came to; with a `problem` where the server refused it."""

    id: int | None = None
    problem: dict[str, Any] | None = None

    def error(self) -> Problem | None:
        """The refusal as the error that the single call would have raised."""
        return None if self.problem is None else problem_of(self.problem)


class ReportAnswer(ItemAnswer):
    """Of one report: the status in which the job stands."""

    status: AnyStatus | None = None


class BeatAnswer(ItemAnswer):
    """Of one heartbeat: what the lease is now."""

    lease_expires_at: datetime | None = None
    cancel_requested: bool = False


class SyncAnswer(Answer):
    """In the order of what was sent; `jobs` are what the claim brought."""

    reports: list[ReportAnswer] = []
    heartbeats: list[BeatAnswer] = []
    jobs: list[ClaimedJob] = []


class Reaped(Answer):
    """What one pass of the reaper did."""

    requeued: int = 0
    exhausted: int = 0
    cancelled: int = 0
    pruned: int = 0


class Queue(Answer):
    name: str
    paused: bool = False
    queued: int = 0
    delayed: int = 0
    running: int = 0


class QueueList(Answer):
    queues: list[Queue]


class WorkerSeen(Answer):
    """A worker as the server knows it."""

    worker_id: str
    last_seen_at: datetime
    running: int = 0
    about: dict[str, Any] | None = None


class WorkerList(Answer):
    workers: list[WorkerSeen]


class QueueStats(Answer):
    queued: int = 0
    delayed: int = 0
    running: int = 0
    oldest_queued_seconds: float | None = None


class Totals(Answer):
    """Since the store was made."""

    created: int = 0
    succeeded: int = 0
    failed: int = 0
    exhausted: int = 0
    cancelled: int = 0
    retried: int = 0
    lost: int = 0


class LastMinute(Answer):
    created: int = 0
    finished: int = 0


class Stats(Answer):
    now: datetime
    queues: dict[str, QueueStats] = {}
    totals: Totals = Totals()
    last_minute: LastMinute = LastMinute()
