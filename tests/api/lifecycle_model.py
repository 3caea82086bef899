"""The protocol in plain Python: what each call does to a job, and what the server shows of it.

A second opinion, written from the protocol's words and from none of the server's code. A call that
is refused changes nothing; what comes back is the problem's code, or None where it was taken.
"""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime, timedelta
from typing import Any, Final

Json = dict[str, Any]
Refusal = str | None
"""The code of the problem that a call is refused with."""

FINAL: Final = {"succeeded", "failed", "exhausted", "cancelled"}
ACTIONS: Final = {
    "succeeded": "succeed",
    "failed": "fail",
    "queued": "release",
    "cancelled": "obey",
}
"""What the trail calls a report of this status."""

FREE_RELEASES: Final = 2
"""How many releases in a row keep their place in line."""

UNSEEN: Final = {"lease_token", "lease_length", "request_id", "events", "ended_by"}
"""What no answer but a claim's shows of a job."""


def seconds(number: float) -> timedelta:
    return timedelta(seconds=number)


def shown(value: Any) -> Any:
    """A value as an answer has it."""
    if isinstance(value, datetime):
        return value.isoformat(timespec="microseconds").replace("+00:00", "Z")
    return value


@dataclass(eq=False, kw_only=True)
class Job:
    """A job, by the fields that the protocol names, and its lease."""

    id: int
    name: str
    retry: Json
    queue: str = "default"
    payload: Any = None
    priority: int = 0
    max_retries: int = 3
    lease_seconds: float | None = None
    timeout_seconds: float | None = None
    tags: Sequence[str] = field(default_factory=list[str])

    created_at: datetime
    updated_at: datetime
    run_at: datetime
    finished_at: datetime | None = None
    status: str = "queued"
    attempt: int = 0
    retry_count: int = 0
    release_count: int = 0
    cancel_requested: bool = False
    progress: Any = None
    checkpoint: Any = None
    result: Any = None
    error: Json | None = None

    locked_by: str | None = None
    locked_at: datetime | None = None
    last_heartbeat_at: datetime | None = None
    lease_expires_at: datetime | None = None
    lease_length: timedelta = timedelta()
    lease_token: str | None = None
    request_id: str | None = None

    events: list[Json] = field(default_factory=list[Json])
    ended_by: dict[str, str] = field(default_factory=dict[str, str])
    """The action that ended each lease, by its token."""

    def shown(self) -> Json:
        names = [field.name for field in fields(self)]
        return {name: shown(getattr(self, name)) for name in names if name not in UNSEEN}

    @property
    def running(self) -> bool:
        return self.status == "running"

    @property
    def rank(self) -> tuple[int, datetime, int]:
        """Who goes first."""
        return -self.priority, self.run_at, self.id

    @property
    def latest_end(self) -> datetime:
        """No heartbeat carries the lease any further."""
        if self.locked_at is None or self.timeout_seconds is None:
            return datetime.max.replace(tzinfo=self.created_at.tzinfo)
        return self.locked_at + seconds(self.timeout_seconds)

    def backoff(self, n: int) -> timedelta:
        """Without jitter, which these jobs do not wish for."""
        delay = self.retry["base_seconds"] * self.retry["factor"] ** (n - 1)
        return seconds(min(delay, self.retry["max_seconds"]))


class Model:
    """All jobs, the queues' pauses, the clock and the watch of the reaper."""

    def __init__(self, now: datetime, *, lease_seconds: float, reaper_interval: float) -> None:
        self.now = now
        self.lease_seconds = lease_seconds
        self.reaper_interval = reaper_interval
        self.jobs: dict[int, Job] = {}
        self.keys: dict[str, tuple[Job, Json]] = {}
        self.paused: set[str] = set()
        self._awake_since = self._last_pass = datetime.min.replace(tzinfo=now.tzinfo)

    @property
    def running(self) -> list[Job]:
        return [job for job in self.jobs.values() if job.running]

    @property
    def repeatable(self) -> list[Job]:
        """The jobs whose claim may be asked for again."""
        return [job for job in self.running if job.request_id is not None]

    @property
    def claimable(self) -> list[Job]:
        return [
            job
            for job in self.jobs.values()
            if job.status == "queued" and job.queue not in self.paused and job.run_at <= self.now
        ]

    @property
    def waiting_for_time(self) -> bool:
        """Whether anything changes when time goes by."""
        return any(
            job.running or (job.status == "queued" and job.run_at > self.now)
            for job in self.jobs.values()
        )

    # Producers

    def create(self, job_id: int, wishes: Json, key: str | None = None) -> Job:
        told = {name: wish for name, wish in wishes.items() if name != "run_in_seconds"}
        job = Job(
            id=job_id,
            created_at=self.now,
            updated_at=self.now,
            run_at=self.now + seconds(wishes.get("run_in_seconds", 0)),
            **told,
        )
        self.jobs[job_id] = job
        if key is not None:
            self.keys[key] = job, wishes
        self._tell(job, "create", None, "producer")
        return job

    # Workers

    def claim(
        self,
        worker_id: str,
        queues: Collection[str] = ("default",),
        lease_seconds: float | None = None,
        request_id: str | None = None,
    ) -> Job | None:
        """The job that goes first, or the one that this request has already: a repeat counts as
        its heartbeat. The lease's token is the server's to choose.
        """
        for job in self.repeatable:
            if (job.locked_by, job.request_id) == (worker_id, request_id):
                self._extend(job)
                return job
        eligible = [job for job in self.claimable if job.queue in queues]
        job = min(eligible, key=lambda job: job.rank, default=None)
        if job is None:
            return None
        length = lease_seconds or job.lease_seconds or self.lease_seconds
        job.attempt += 1
        job.locked_by, job.locked_at, job.request_id = worker_id, self.now, request_id
        job.lease_length = seconds(min(length, job.timeout_seconds or length))
        job.lease_expires_at = self.now + job.lease_length
        job.last_heartbeat_at = self.now
        self._move(job, "claim", "running", worker_id)
        return job

    def heartbeat(
        self, job: Job, token: str, progress: Any = None, checkpoint: Any = None
    ) -> Refusal:
        """The token alone is the fence. Nobody else ends a lease that ran out than the reaper."""
        if token != job.lease_token:
            return "lease-lost"
        self._extend(job)
        job.progress = job.progress if progress is None else progress
        job.checkpoint = job.checkpoint if checkpoint is None else checkpoint
        return None

    def _extend(self, job: Job) -> None:
        assert job.lease_expires_at is not None
        wished = min(self.now + job.lease_length, job.latest_end)
        job.lease_expires_at = max(job.lease_expires_at, wished)
        job.last_heartbeat_at = job.updated_at = self.now

    def report(self, job: Job, token: str, worker_id: str, report: Json) -> Refusal:
        action = ACTIONS[report["status"]]
        if token != job.lease_token:
            return _reported_late(job, token, action)
        if action == "obey" and not job.cancel_requested:
            return "invalid-transition"
        match action:
            case "succeed":
                job.result = report.get("result")
                self._move(job, action, "succeeded", worker_id)
            case "fail":
                job.error = report.get("error")
                self._ended_badly(job, action, worker_id, report)
            case "release":
                self._released(job, worker_id, report.get("run_in_seconds"))
            case _:
                self._move(job, action, "cancelled", worker_id)
        return None

    def _ended_badly(self, job: Job, action: str, actor: str, report: Json) -> None:
        """A failure or a lost lease, with what is told of it: while retries are left it spends
        one, and a requested cancel leaves none.
        """
        retryable = report.get("retryable", True) and job.max_retries > 0
        job.release_count = 0
        if job.cancel_requested:
            status = "cancelled"
        elif action == "fail" and not retryable:
            status = "failed"
        elif job.retry_count == job.max_retries:
            status = "exhausted"
        else:
            status = "queued"
            job.retry_count += 1
            delay = report.get("retry_in_seconds")
            job.run_at = self.now + (
                job.backoff(job.retry_count) if delay is None else seconds(delay)
            )
        self._move(job, action, status, actor, report.get("reason"))

    def _released(self, job: Job, worker_id: str, run_in_seconds: float | None) -> None:
        """Handed back: it spends nothing and keeps its place, unless everyone hands it back."""
        if job.cancel_requested:
            self._move(job, "release", "cancelled", worker_id)
            return
        job.release_count += 1
        if run_in_seconds is not None:
            job.run_at = self.now + seconds(run_in_seconds)
        elif job.release_count > FREE_RELEASES:
            job.run_at = self.now + job.backoff(job.release_count)
        self._move(job, "release", "queued", worker_id)

    # Operators

    def cancel(self, job: Job, *, force: bool = False) -> Refusal:
        if job.status == "queued" or (job.running and force):
            self._move(job, "cancel", "cancelled", "operator")
        elif job.running and not job.cancel_requested:
            job.cancel_requested = True
            job.updated_at = self.now
        elif job.status in FINAL - {"cancelled"}:
            return "invalid-transition"
        return None

    def retry(self, job: Job, *, again: bool = False) -> Refusal:
        """Every budget is fresh; `attempt`, `checkpoint` and `error` stay."""
        if job.status == "queued":
            return None
        if job.running or (job.status == "succeeded" and not again):
            return "invalid-transition"
        job.retry_count = job.release_count = 0
        job.cancel_requested = False
        job.result = job.progress = None
        job.run_at = self.now
        self._move(job, "retry", "queued", "operator")
        return None

    def pause(self, queue: str, *, paused: bool) -> None:
        """Nothing is taken from a paused queue; what runs already goes on."""
        (self.paused.add if paused else self.paused.discard)(queue)

    # Time

    def pass_time(self, number: float) -> Counter[str]:
        """Time goes by and the reaper makes its passes. What became of the jobs that it took."""
        taken = Counter[str]()
        while number > 0:
            step = min(number, self.reaper_interval)
            self.now += seconds(step)
            number -= step
            taken += self.reap()
        return taken

    def reap(self) -> Counter[str]:
        """One pass. A lease is taken when it ran out, and the reaper has been awake, with no gap
        between its passes, for as long as that lease is. With nothing to watch it is not awake.
        """
        if not self.running:
            return Counter()
        if self.now - self._last_pass > seconds(2 * self.reaper_interval):
            self._awake_since = self.now
        self._last_pass = self.now
        lost = [job for job in self.running if self._ran_out(job)]
        for job in lost:
            self._ended_badly(job, "lose", "reaper", {"reason": self._why_lost(job)})
        return Counter(job.status for job in lost)

    def _ran_out(self, job: Job) -> bool:
        assert job.lease_expires_at is not None
        return max(job.lease_expires_at, self._awake_since + job.lease_length) <= self.now

    def _why_lost(self, job: Job) -> str | None:
        """None where both are true: the lease ran out, and then the attempt's time as well."""
        if self.now < job.latest_end:
            return "lease-expired"
        return "timeout" if job.lease_expires_at == job.latest_end else None

    # The trail

    def _move(
        self, job: Job, action: str, status: str, actor: str, reason: str | None = None
    ) -> None:
        """A change of status, with what every one of its kind does to the lease and the times."""
        before, job.status, job.updated_at = job.status, status, self.now
        job.finished_at = self.now if status in FINAL else None
        if before == "running":
            assert job.lease_token is not None
            job.ended_by[job.lease_token] = action
            job.lease_token = job.lease_expires_at = job.request_id = None
        if status == "queued":
            job.locked_by = job.locked_at = job.last_heartbeat_at = None
        self._tell(job, action, before, actor, reason)

    def _tell(
        self, job: Job, action: str, before: str | None, actor: str, reason: str | None = None
    ) -> None:
        """A row of the trail, without what is left open: of the reasons only lost leases' count."""
        job.events.append(
            {
                "action": action,
                "from_status": before,
                "to_status": job.status,
                "actor": actor,
                "attempt": job.attempt,
                "at": shown(self.now),
                **({} if reason is None else {"reason": reason}),
            }
        )


def _reported_late(job: Job, token: str, action: str) -> Refusal:
    """Under a lease that is over: told before, told otherwise, or taken away."""
    ended_by = job.ended_by.get(token)
    if ended_by == action:
        return None
    return "invalid-transition" if ended_by in ACTIONS.values() else "lease-lost"
