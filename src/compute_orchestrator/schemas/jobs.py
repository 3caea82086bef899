"""Jobs on the wire: what a producer sends, and how a job is shown."""

import json
from collections.abc import Collection, Iterable
from functools import lru_cache
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, model_validator
from pydantic.config import JsonDict

from compute_orchestrator.domain.errors import PayloadTooLarge
from compute_orchestrator.domain.job import Job, NewJob
from compute_orchestrator.domain.lifecycle import Status
from compute_orchestrator.domain.listing import Event
from compute_orchestrator.domain.retry import RetryPolicy
from compute_orchestrator.domain.values import Micros
from compute_orchestrator.schemas.values import (
    Input,
    LeaseSeconds,
    Moment,
    Name,
    Output,
    Seconds,
    Segment,
    ShownMoment,
    WaitSeconds,
    fits,
    format_moment,
    parse_decimal,
    parse_digits,
    to_json,
)

ANY_JSON = "Any JSON."


class RetryInput(Input):
    """The backoff before retry n: min(base * factor^(n-1), max) * (1 + jitter * u) seconds, with u
    in [0, 1).
    """

    base_seconds: Seconds | None = Field(None, examples=[1])
    factor: Annotated[float, Field(ge=0, le=1_000)] | None = Field(None, examples=[2])
    max_seconds: Seconds | None = Field(None, examples=[3600])
    jitter: Annotated[float, Field(ge=0, le=1)] | None = Field(None, examples=[0.2])

    def to_domain(self) -> RetryPolicy:
        return RetryPolicy(**self.model_dump(exclude_none=True))


class JobInput(Input):
    """A job to create. null is the same as absent."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "name": "resize",
                    "queue": "images",
                    "payload": {"url": "https://example.com/a.png"},
                },
                {"name": "bill", "run_in_seconds": 3600, "max_retries": 5, "tags": ["monthly"]},
            ]
        }
    )

    name: Name = Field(description="What to do.")
    queue: Segment | None = Field(None, description='The line it waits in; "default".')
    payload: Any = Field(None, description="Any JSON; what the worker is given.")
    priority: Annotated[int, Field(ge=-100, le=100)] | None = Field(
        None, description="Higher goes first; 0."
    )
    max_retries: Annotated[int, Field(ge=0, le=1_000)] | None = Field(
        None, description="How many more runs failures and lost leases may cause; 3."
    )
    lease_seconds: LeaseSeconds | None = Field(
        None, description="The length of its leases, unless a claim says another."
    )
    timeout_seconds: LeaseSeconds | None = Field(
        None, description="The longest that one attempt may run."
    )
    run_at: Moment | None = Field(None, description="Not before this time.")
    run_in_seconds: Seconds | None = Field(None, description="Not before so many seconds from now.")
    tags: Annotated[list[Name], Field(max_length=20)] | None = Field(
        None, description="Words to find it by."
    )
    retry: RetryInput | None = None

    @model_validator(mode="after")
    def _one_start(self) -> "JobInput":
        if self.run_at is not None and self.run_in_seconds is not None:
            raise ValueError("run_at and run_in_seconds can't both be given")
        return self

    def to_domain(self, max_payload_bytes: int) -> NewJob:
        """Raises PayloadTooLarge."""
        payload = None if self.payload is None else to_json(self.payload)
        return NewJob(
            name=self.name,
            queue=self.queue if self.queue is not None else "default",
            payload=fits(payload, max_payload_bytes, "payload"),
            priority=self.priority or 0,
            max_retries=3 if self.max_retries is None else self.max_retries,
            lease_seconds=self.lease_seconds,
            timeout_seconds=self.timeout_seconds,
            run_at=None if self.run_at is None else Micros(self.run_at),
            run_in_seconds=self.run_in_seconds,
            tags=tuple(self.tags or ()),
            retry=RetryPolicy() if self.retry is None else self.retry.to_domain(),
        )


MOST_AT_ONCE = 1_000


class BulkInput(Input):
    """Jobs to create, all or none."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "jobs": [
                        {"name": "resize", "queue": "images", "payload": {"url": "a.png"}},
                        {"name": "resize", "queue": "images", "payload": {"url": "b.png"}},
                    ]
                }
            ]
        }
    )

    jobs: Annotated[list[JobInput], Field(min_length=1, max_length=MOST_AT_ONCE)]

    def to_domain(self, max_payload_bytes: int) -> list[NewJob]:
        """Raises PayloadTooLarge."""
        return [self._job(number, job, max_payload_bytes) for number, job in enumerate(self.jobs)]

    def _job(self, number: int, job: JobInput, max_payload_bytes: int) -> NewJob:
        try:
            return job.to_domain(max_payload_bytes)
        except PayloadTooLarge as error:
            raise PayloadTooLarge(f"jobs.{number}: {error.detail}") from None


class RetryOutput(Output):
    base_seconds: float
    factor: float
    max_seconds: float
    jitter: float


EXAMPLE_JOB: JsonDict = {
    "id": 17,
    "queue": "images",
    "name": "resize",
    "payload": {"url": "https://example.com/a.png"},
    "priority": 0,
    "status": "queued",
    "attempt": 0,
    "retry_count": 0,
    "max_retries": 3,
    "release_count": 0,
    "run_at": "2026-11-23T21:45:47.000000Z",
    "lease_seconds": None,
    "timeout_seconds": None,
    "retry": {
        "base_seconds": 1.0,
        "factor": 2.0,
        "max_seconds": 3600.0,
        "jitter": 0.2,
    },
    "locked_by": None,
    "locked_at": None,
    "last_heartbeat_at": None,
    "lease_expires_at": None,
    "cancel_requested": False,
    "progress": None,
    "checkpoint": None,
    "result": None,
    "error": None,
    "tags": [],
    "created_at": "2026-11-23T21:45:47.000000Z",
    "updated_at": "2026-11-23T21:45:47.000000Z",
    "finished_at": None,
}


class JobOutput(Output):
    """A job as it stands. The lease token is in the claim's answer alone."""

    id: int
    queue: str
    name: str
    payload: Any = Field(description=ANY_JSON)
    priority: int
    status: Status
    attempt: int = Field(description="How many times it was claimed.")
    retry_count: int
    max_retries: int
    release_count: int = Field(description="Releases since the last failure, lost lease or retry.")
    run_at: ShownMoment
    lease_seconds: float | None = Field(description="The job's own wish.")
    timeout_seconds: float | None
    retry: RetryOutput
    locked_by: str | None
    locked_at: ShownMoment | None
    last_heartbeat_at: ShownMoment | None
    lease_expires_at: ShownMoment | None
    cancel_requested: bool
    progress: Any = Field(description=ANY_JSON)
    checkpoint: Any = Field(description=ANY_JSON)
    result: Any = Field(description=ANY_JSON)
    error: dict[str, Any] | None = Field(
        description="What the last failed attempt reported, also on a job that succeeded later."
    )
    tags: list[str]
    created_at: ShownMoment
    updated_at: ShownMoment
    finished_at: ShownMoment | None

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE_JOB]})


class BulkOutput(Output):
    """The jobs in the order of the call."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"jobs": [EXAMPLE_JOB]}]})

    jobs: list[JobOutput]


LEAN_EXAMPLE: JsonDict = {
    field: value
    for field, value in EXAMPLE_JOB.items()
    if field not in ("payload", "result", "checkpoint")
}


class JobItemOutput(JobOutput):
    """A job in a list: payload, result and checkpoint only where `include` names them."""

    model_config = ConfigDict(json_schema_extra={"examples": [LEAN_EXAMPLE]})

    payload: Any = Field(None, description=ANY_JSON)
    checkpoint: Any = Field(None, description=ANY_JSON)
    result: Any = Field(None, description=ANY_JSON)


class JobListOutput(Output):
    model_config = ConfigDict(
        json_schema_extra={"examples": [{"jobs": [LEAN_EXAMPLE], "next_cursor": "bmV3ZXN0OjE3"}]}
    )

    jobs: list[JobItemOutput]
    next_cursor: str | None = Field(description="Where the next page begins; null at the end.")


class EventOutput(Output):
    """One change of status."""

    id: int
    action: str = Field(examples=["claim"])
    from_status: str | None
    to_status: str
    actor: str = Field(description="A worker id, producer, operator, reaper or server.")
    reason: str | None
    attempt: int
    at: ShownMoment


class EventListOutput(Output):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "events": [
                        {
                            "id": 40,
                            "action": "create",
                            "from_status": None,
                            "to_status": "queued",
                            "actor": "producer",
                            "reason": None,
                            "attempt": 0,
                            "at": "2026-11-23T21:45:47.000000Z",
                        }
                    ],
                    "next_cursor": None,
                }
            ]
        }
    )

    events: list[EventOutput]
    next_cursor: str | None


Included = Literal["payload", "result", "checkpoint"]


class ListQuery(Input):
    """Which jobs to list."""

    model_config = ConfigDict(strict=False, extra="forbid")

    status: list[Status] = Field([], description="In any of these statuses.")
    queue: list[Name] = Field([], description="In any of these queues.")
    name: list[Name] = Field([], description="With any of these names.")
    tag: list[Name] = Field([], description="With any of these tags.")
    worker_id: list[Name] = Field([], description="Held, or last held, by any of these workers.")
    created_after: Moment | None = None
    created_before: Moment | None = None
    order: Literal["newest", "oldest"] = "newest"
    include: list[Included] = Field([], description="Heavy fields to show too.")
    limit: Annotated[int, Field(ge=1, le=500), BeforeValidator(parse_digits)] = 50
    cursor: str | None = Field(None, description="The next_cursor of the page before.")

    def shown(self, name: Literal["created_after", "created_before"]) -> str | None:
        """A moment of the filter as it is written in a query."""
        moment = getattr(self, name)
        return None if moment is None else format_moment(Micros(moment))


class JobQuery(Input):
    model_config = ConfigDict(strict=False, extra="forbid")

    wait_seconds: Annotated[WaitSeconds, BeforeValidator(parse_decimal)] = Field(
        0.0, description="How long to wait for its end before it is answered as it stands."
    )


class EventsQuery(Input):
    model_config = ConfigDict(strict=False, extra="forbid")

    limit: Annotated[int, Field(ge=1, le=1_000), BeforeValidator(parse_digits)] = 200
    cursor: str | None = Field(None, description="The next_cursor of the page before.")


@lru_cache(maxsize=4096)
def quoted(text: str) -> str:
    """A string as JSON. Queues, names and workers come again and again."""
    return json.dumps(text, ensure_ascii=False)


def _moment(moment: Micros | None) -> str:
    return "null" if moment is None else f'"{format_moment(moment)}"'


def _number(number: float | None) -> str:
    # What was just inserted comes back from SQLite as it was bound, an int too.
    return "null" if number is None else repr(float(number))


def _heavy(field: str, text: str | None, omitted: Collection[str]) -> str:
    return "" if field in omitted else f'"{field}":{text or "null"},'


def job_json(job: Job, *, with_token: bool = False, omitted: Collection[str] = ()) -> str:
    """A job as it leaves the server. Its JSON fields go out as the text that they are."""
    token = f'"lease_token":"{job.lease_token}",' if with_token else ""
    return (
        f'{{"id":{job.id},{token}"queue":{quoted(job.queue)},"name":{quoted(job.name)},'
        f"{_heavy('payload', job.payload, omitted)}"
        f'"priority":{job.priority},"status":"{job.status.value}","attempt":{job.attempt},'
        f'"retry_count":{job.retry_count},"max_retries":{job.max_retries},'
        f'"release_count":{job.release_count},"run_at":"{format_moment(job.run_at)}",'
        f'"lease_seconds":{_number(job.lease_seconds)},'
        f'"timeout_seconds":{_number(job.timeout_seconds)},'
        f'"retry":{{"base_seconds":{_number(job.retry_base_seconds)},'
        f'"factor":{_number(job.retry_factor)},"max_seconds":{_number(job.retry_max_seconds)},'
        f'"jitter":{_number(job.retry_jitter)}}},'
        f'"locked_by":{quoted(job.locked_by) if job.locked_by is not None else "null"},'
        f'"locked_at":{_moment(job.locked_at)},'
        f'"last_heartbeat_at":{_moment(job.last_heartbeat_at)},'
        f'"lease_expires_at":{_moment(job.lease_expires_at)},'
        f'"cancel_requested":{"true" if job.cancel_requested else "false"},'
        f'"progress":{job.progress or "null"},'
        f"{_heavy('checkpoint', job.checkpoint, omitted)}"
        f"{_heavy('result', job.result, omitted)}"
        f'"error":{job.error or "null"},"tags":{job.tags},'
        f'"created_at":"{format_moment(job.created_at)}",'
        f'"updated_at":"{format_moment(job.updated_at)}",'
        f'"finished_at":{_moment(job.finished_at)}}}'
    )


def jobs_json(jobs: Iterable[Job], *, with_token: bool = False) -> str:
    """Jobs as the items of a list."""
    return ",".join([job_json(job, with_token=with_token) for job in jobs])


def event_json(event: Event) -> str:
    """One row of the trail as it leaves the server."""
    return json.dumps({**event._asdict(), "at": format_moment(event.at)}, ensure_ascii=False)
