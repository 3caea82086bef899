"""The whole protocol as one async class.

Every call may be repeated without a second effect: a create carries an Idempotency-Key, a claim a
request id, a report its lease token; the rest is so by nature. So a call that got no answer, or a
5xx, is sent again (`Patience`), and what is raised in the end is one of `errors`.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from types import TracebackType
from typing import Self, TypedDict, Unpack, cast, overload
from urllib.parse import quote

import httpx

from compute_orchestrator.client.calls import Caller, Limits, Parameter
from compute_orchestrator.client.handle import JobHandle
from compute_orchestrator.client.jobs import JobOptions, NewJob, moment
from compute_orchestrator.client.models import (
    ClaimedJob,
    Event,
    EventPage,
    Job,
    JobList,
    JobPage,
    Json,
    LeaseState,
    Queue,
    QueueList,
    Reaped,
    Stats,
    SyncAnswer,
    WorkerList,
    WorkerSeen,
)
from compute_orchestrator.client.names import check_segment, header_value, new_id
from compute_orchestrator.client.reports import Report
from compute_orchestrator.client.retries import Patience
from compute_orchestrator.client.syncing import BeatItem, ClaimPart, sync_fields

# The protocol's, for one call.
MOST_NEW_JOBS = 1_000

Words = str | Sequence[str]


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
        """`max_connections` is how many calls are under way at once; long polls don't count.

        A `transport` of your own, of httpx, makes its connections itself.
        """
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
        new = NewJob(name, payload, **options)
        return await self._caller.ask(
            "POST", "/jobs", Job, body=new.fields(), headers=_key(idempotency_key)
        )

    async def create_many(
        self, jobs: Sequence[NewJob], *, idempotency_key: str | None = None
    ) -> list[Job]:
        """Create up to 1,000 jobs, all or none. The key is for the whole call."""
        if len(jobs) > MOST_NEW_JOBS:
            raise ValueError(f"at most {MOST_NEW_JOBS} jobs in one call: {len(jobs)}")
        if not jobs:
            return []
        body = {"jobs": [job.fields() for job in jobs]}
        headers = _key(idempotency_key)
        made = await self._caller.ask("POST", "/jobs/bulk", JobList, body=body, headers=headers)
        return made.jobs

    @overload
    async def submit(self, job: NewJob, /, *, idempotency_key: str | None = None) -> JobHandle: ...

    @overload
    async def submit(
        self,
        job: str,
        /,
        payload: Json = None,
        *,
        idempotency_key: str | None = None,
        **options: Unpack[JobOptions],
    ) -> JobHandle: ...

    async def submit(
        self,
        job: str | NewJob,
        /,
        payload: Json = None,
        *,
        idempotency_key: str | None = None,
        **options: Unpack[JobOptions],
    ) -> JobHandle:
        """Create a job, by its name or as it was made before, and get a handle on it."""
        if isinstance(job, str):
            job = NewJob(job, payload, **options)
        elif payload is not None or options:
            raise TypeError("a NewJob has its payload and its options already")
        made = await self.create(
            job.name, job.payload, idempotency_key=idempotency_key, **job.options
        )
        return JobHandle(self, made)

    async def get(
        self,
        job_id: int,
        *,
        wait_seconds: float | None = None,
        patience: Patience | None = None,
    ) -> Job:
        """The job as it stands; with `wait_seconds` (up to 60) as soon as it is final.

        The answer may come early, as it stands then: when the server stops, for one.
        """
        with self._caller.long_poll(wait_seconds) as waits:
            query: dict[str, Parameter] = {"wait_seconds": waits}
            limits = Limits(waits_seconds=waits, patience=patience)
            return await self._caller.ask("GET", f"/jobs/{job_id}", Job, query=query, limits=limits)

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

    async def iter_pages(
        self, *, page_size: int | None = None, **filters: Unpack[JobFilter]
    ) -> AsyncIterator[JobPage]:
        """Page after page; one may be short, even empty, while there are more."""
        page = await self.list_jobs(limit=page_size, **filters)
        yield page
        while page.next_cursor is not None:
            page = await self.list_jobs(limit=page_size, cursor=page.next_cursor, **filters)
            yield page

    async def iter_jobs(
        self, *, page_size: int | None = None, **filters: Unpack[JobFilter]
    ) -> AsyncIterator[Job]:
        """All of them, page by page."""
        async for page in self.iter_pages(page_size=page_size, **filters):
            for job in page.jobs:
                yield job

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
        wait_seconds: float | None = None,
        request_id: str | None = None,
    ) -> ClaimedJob | None:
        """One job with its lease, or None. The same `request_id` gives the same lease again.

        With `wait_seconds` (up to 60) it waits for a job; None may come early, as in `get`.
        """
        with self._caller.long_poll(wait_seconds) as waits:
            body = {
                "worker_id": worker_id,
                "queues": queues,
                "lease_seconds": lease_seconds,
                "wait_seconds": waits,
                "request_id": request_id or new_id(),
            }
            return await self._caller.ask_maybe(
                "POST",
                "/jobs/claim",
                ClaimedJob,
                body=_without_none(body),
                limits=Limits(waits_seconds=waits),
            )

    async def sync(
        self,
        worker_id: str,
        *,
        about: Mapping[str, object] | None = None,
        reports: Sequence[tuple[ClaimedJob, Report]] = (),
        heartbeats: Sequence[BeatItem] = (),
        claim: ClaimPart | None = None,
        timeout_seconds: float | None = None,
    ) -> SyncAnswer:
        """Reports, heartbeats and a claim in one call; each item has an answer of its own.

        Only a claim that is alone is waited for.
        """
        with self._caller.long_poll(claim and claim.wait_seconds) as waits:
            if claim is not None:
                request_id = claim.request_id or new_id()
                claim = replace(claim, wait_seconds=waits, request_id=request_id)
            is_alone = not reports and not heartbeats
            worker = quote(check_segment(worker_id, "a worker id"), safe="")
            return await self._caller.ask(
                "POST",
                f"/workers/{worker}/sync",
                SyncAnswer,
                body=sync_fields(about, reports, heartbeats, claim),
                limits=Limits(
                    timeout_seconds=timeout_seconds, waits_seconds=waits if is_alone else None
                ),
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


def _key(given: str | None) -> dict[str, bytes]:
    key = new_id() if given is None else given
    return {"Idempotency-Key": header_value(key, "an idempotency key")}


def _proof(job: ClaimedJob) -> dict[str, object]:
    return {"worker_id": job.locked_by, "lease_token": job.lease_token}


def _without_none(fields: Mapping[str, object]) -> dict[str, object]:
    """null is the same as absent."""
    return {name: value for name, value in fields.items() if value is not None}
