"""The whole protocol as one async class.

Every call may be repeated without a second effect: a create carries an Idempotency-Key, a claim a
request id, a report its lease token; the rest is so by nature. So a call that got no answer, or a
5xx, is sent again (`Patience`), and what is raised in the end is one of `errors`.
"""

import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime
from types import TracebackType
from typing import Self, TypedDict, Unpack, cast
from urllib.parse import quote

import httpx

from compute_orchestrator.client.calls import Caller, Parameter
from compute_orchestrator.client.models import (
    ClaimedJob,
    Event,
    EventPage,
    Job,
    JobPage,
    Json,
    LeaseState,
    Queue,
    QueueList,
    Reaped,
    Stats,
    WorkerList,
    WorkerSeen,
)
from compute_orchestrator.client.names import check_name, check_segment
from compute_orchestrator.client.reports import Report
from compute_orchestrator.client.retries import Patience

Words = str | Sequence[str]


class JobOptions(TypedDict, total=False):
    """What a job may be given; what is left out is the server's default."""

    queue: str
    priority: int
    max_retries: int
    lease_seconds: float
    timeout_seconds: float
    run_at: datetime
    run_in_seconds: float
    tags: Sequence[str]
    retry: Mapping[str, float]


class JobFilter(TypedDict, total=False):
    """Which jobs are listed; several words of one kind mean any of them."""

    status: Words
    queue: Words
    name: Words
    tag: Words
    worker_id: Words
    created_after: datetime
    created_before: datetime
    order: str
    include: Words


class OrchestratorClient:
    """One server, many calls. Use it as `async with`, or close it with `aclose()`."""

    def __init__(
        self,
        url: str,
        *,
        timeout_seconds: float = 10.0,
        patience: Patience | None = None,
        max_connections: int = 16,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """More connections make each call dearer: httpx looks through all of them every time."""
        self._caller = Caller(
            url,
            timeout_seconds=timeout_seconds,
            patience=patience or Patience(),
            max_connections=max_connections,
            transport=transport,
        )
        self.url = self._caller.url

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        await self._caller.aclose()

    # Producers

    async def create(
        self,
        name: str,
        payload: Json = None,
        *,
        idempotency_key: str | None = None,
        **options: Unpack[JobOptions],
    ) -> Job:
        """Create a job. A key of your own also keeps a later run of your program from a second."""
        key = idempotency_key or new_id()
        fields: dict[str, object] = {"name": name, "payload": payload, **options}
        if (run_at := options.get("run_at")) is not None:
            fields["run_at"] = moment(run_at)
        return await self._caller.ask(
            "POST",
            "/jobs",
            Job,
            body=_without_none(fields),
            headers={"Idempotency-Key": header_value(key, "an idempotency key")},
        )

    async def get(self, job_id: int) -> Job:
        return await self._caller.ask("GET", f"/jobs/{job_id}", Job)

    async def list_jobs(
        self,
        *,
        limit: int | None = None,
        cursor: str | None = None,
        **filters: Unpack[JobFilter],
    ) -> JobPage:
        """One page, without payload, result and checkpoint unless `include` names them."""
        query: dict[str, Parameter] = {"limit": limit, "cursor": cursor}
        for name, value in filters.items():
            query[name] = moment(value) if isinstance(value, datetime) else cast("Words", value)
        return await self._caller.ask("GET", "/jobs", JobPage, query=query)

    async def iter_jobs(
        self, *, page_size: int | None = None, **filters: Unpack[JobFilter]
    ) -> AsyncIterator[Job]:
        """All of them, page by page."""
        cursor = None
        while True:
            page = await self.list_jobs(limit=page_size, cursor=cursor, **filters)
            for job in page.jobs:
                yield job
            cursor = page.next_cursor
            if cursor is None:  # a page may be short, even empty, while there are more
                return

    async def list_events(
        self, job_id: int, *, limit: int | None = None, cursor: str | None = None
    ) -> EventPage:
        """One page of a job's audit trail, oldest first."""
        query: dict[str, Parameter] = {"limit": limit, "cursor": cursor}
        return await self._caller.ask("GET", f"/jobs/{job_id}/events", EventPage, query=query)

    async def events(self, job_id: int) -> list[Event]:
        """A job's whole audit trail, oldest first."""
        page = await self.list_events(job_id)
        events = list(page.events)
        while page.next_cursor is not None:
            page = await self.list_events(job_id, cursor=page.next_cursor)
            events.extend(page.events)
        return events

    # Workers

    async def claim(
        self,
        worker_id: str,
        *,
        queues: Sequence[str] | None = None,
        lease_seconds: float | None = None,
        request_id: str | None = None,
    ) -> ClaimedJob | None:
        """One job with its lease, or None. The same `request_id` gives the same lease again."""
        body = {
            "worker_id": worker_id,
            "queues": queues,
            "lease_seconds": lease_seconds,
            "request_id": request_id or new_id(),
        }
        return await self._caller.ask_maybe(
            "POST", "/jobs/claim", ClaimedJob, body=_without_none(body)
        )

    async def heartbeat(
        self, job: ClaimedJob, *, progress: Json = None, checkpoint: Json = None
    ) -> LeaseState:
        body = {**_proof(job), "progress": progress, "checkpoint": checkpoint}
        return await self._caller.ask(
            "POST", f"/jobs/{job.id}/heartbeat", LeaseState, body=_without_none(body)
        )

    async def report(self, job: ClaimedJob, report: Report) -> Job:
        """Say what came of the attempt. A report that was taken may be repeated."""
        body = {**_proof(job), **report.fields()}
        return await self._caller.ask("PATCH", f"/jobs/{job.id}/status", Job, body=body)

    async def report_succeeded(self, job: ClaimedJob, result: Json = None) -> Job:
        return await self.report(job, Report.succeeded(result))

    async def report_failed(
        self,
        job: ClaimedJob,
        error: Mapping[str, object] | None = None,
        *,
        retryable: bool = True,
        retry_in_seconds: float | None = None,
    ) -> Job:
        report = Report.failed(error, retryable=retryable, retry_in_seconds=retry_in_seconds)
        return await self.report(job, report)

    async def report_released(self, job: ClaimedJob, *, run_in_seconds: float | None = None) -> Job:
        """Hand the job back; it costs none of its retries."""
        return await self.report(job, Report.released(run_in_seconds=run_in_seconds))

    async def report_cancelled(self, job: ClaimedJob) -> Job:
        """Acknowledge a cancel request."""
        return await self.report(job, Report.cancelled())

    # Operators

    async def cancel(self, job_id: int, *, force: bool = False) -> Job:
        """Cancel a waiting job; a running one is marked, or with `force` ended at once."""
        query: dict[str, Parameter] = {"force": True if force else None}
        return await self._caller.ask("POST", f"/jobs/{job_id}/cancel", Job, query=query)

    async def retry(self, job_id: int, *, again: bool = False) -> Job:
        """Put a final job back into its queue; one that succeeded only with `again`."""
        query: dict[str, Parameter] = {"again": True if again else None}
        return await self._caller.ask("POST", f"/jobs/{job_id}/retry", Job, query=query)

    async def reap(self) -> Reaped:
        """Run the reaper now."""
        return await self._caller.ask("POST", "/jobs/reap", Reaped)

    async def queues(self) -> list[Queue]:
        return (await self._caller.ask("GET", "/queues", QueueList)).queues

    async def pause_queue(self, name: str) -> Queue:
        """No claim takes from it until it is resumed."""
        return await self._set_paused(name, paused=True)

    async def resume_queue(self, name: str) -> Queue:
        return await self._set_paused(name, paused=False)

    async def workers(self) -> list[WorkerSeen]:
        return (await self._caller.ask("GET", "/workers", WorkerList)).workers

    async def stats(self) -> Stats:
        return await self._caller.ask("GET", "/stats", Stats)

    async def _set_paused(self, name: str, *, paused: bool) -> Queue:
        name = quote(check_segment(name, "a queue"), safe="")
        return await self._caller.ask("PATCH", f"/queues/{name}", Queue, body={"paused": paused})


def new_id() -> str:
    return uuid.uuid4().hex


def header_value(value: str, what: str) -> bytes:
    """As bytes of UTF-8. A space at either end would be lost on the way."""
    if value != value.strip():
        raise ValueError(f"{what} must not begin or end with white space: {value!r}")
    return check_name(value, what).encode()


def moment(value: datetime) -> str:
    """RFC 3339; a time without an offset would be read differently on another machine."""
    if value.tzinfo is None:
        raise ValueError(f"{value!r} has no time zone")
    return value.isoformat()


def _proof(job: ClaimedJob) -> dict[str, object]:
    return {"worker_id": job.locked_by, "lease_token": job.lease_token}


def _without_none(fields: Mapping[str, object]) -> dict[str, object]:
    """null is the same as absent."""
    return {name: value for name, value in fields.items() if value is not None}
