"""/jobs: create, list, read, and the trail."""

import hashlib
import json
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Header, Query, Request, Response

from compute_orchestrator.domain.errors import ValidationFailed
from compute_orchestrator.domain.job import NewJob
from compute_orchestrator.domain.listing import JobFilter
from compute_orchestrator.domain.values import JobId, Micros
from compute_orchestrator.routes.connection import client_gone
from compute_orchestrator.routes.deps import Limits, Wired
from compute_orchestrator.routes.direct import DirectRoute
from compute_orchestrator.routes.problems import problems
from compute_orchestrator.routes.requests import CheckedRequest, ProtocolRoute
from compute_orchestrator.schemas.jobs import (
    BulkInput,
    BulkOutput,
    EventListOutput,
    EventsQuery,
    JobInput,
    JobListOutput,
    JobOutput,
    JobQuery,
    ListQuery,
    event_json,
    job_json,
    jobs_json,
)
from compute_orchestrator.schemas.values import PathId, check_name
from compute_orchestrator.services.jobs import CreateCall

router = APIRouter(tags=["jobs"], route_class=ProtocolRoute)
HEAVY = frozenset({"payload", "result", "checkpoint"})

busy_router = APIRouter(tags=["jobs"], route_class=DirectRoute)

IdempotencyKey = Annotated[
    str | None,
    Header(description="1 to 200 bytes. The same key with the same body answers the same jobs."),
]


@busy_router.post(
    "/jobs",
    operation_id="create_job",
    summary="Create a job",
    status_code=201,
    response_model=JobOutput,
    responses={
        200: {"model": JobOutput, "description": "The job that this Idempotency-Key made before."},
        **problems(408, 413, 415),
    },
)
async def create_job(
    body: JobInput,
    request: CheckedRequest,
    services: Wired,
    limits: Limits,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Accept a job. Once this answers 201, the job survives whatever happens to the server."""
    call = _call([body.to_domain(limits.payload)], idempotency_key, request)
    created = await services.jobs.create(call)
    (job,) = created.jobs
    return Response(
        job_json(job),
        201 if created.new else 200,
        {"Location": f"/jobs/{job.id}"},
        media_type="application/json",
    )


@busy_router.post(
    "/jobs/bulk",
    operation_id="create_jobs",
    summary="Create many jobs",
    status_code=201,
    response_model=BulkOutput,
    responses={
        200: {
            "model": BulkOutput,
            "description": "The jobs that this Idempotency-Key made before, without those that "
            "were deleted meanwhile.",
        },
        **problems(408, 413, 415),
    },
)
async def create_jobs(
    body: BulkInput,
    request: CheckedRequest,
    services: Wired,
    limits: Limits,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Accept up to 1,000 jobs, all or none. The answer has them in the order of the call."""
    call = _call(body.to_domain(limits.payload), idempotency_key, request)
    created = await services.jobs.create(call)
    return Response(
        f'{{"jobs":[{jobs_json(created.jobs)}]}}',
        201 if created.new else 200,
        media_type="application/json",
    )


@router.get(
    "/jobs",
    operation_id="list_jobs",
    summary="List jobs",
    response_model=JobListOutput,
    response_model_exclude_unset=True,
    responses=problems(),
)
async def list_jobs(query: Annotated[ListQuery, Query()], services: Wired) -> Response:
    """A page of jobs. It looks at 10,000 of them at most, so it may be short, or even empty, while
    `next_cursor` is there: go on until it is null.
    """
    page = await services.jobs.page(_filter(query), query.limit, query.cursor)
    omitted = HEAVY - set(query.include)
    jobs = ",".join(job_json(job, omitted=omitted) for job in page.jobs)
    headers: dict[str, str] = {}
    if page.next_cursor is not None:
        following = query.model_dump(mode="json", exclude_unset=True, exclude={"cursor"})
        for name in ("created_after", "created_before"):
            if name in following:
                following[name] = query.shown(name)
        following["cursor"] = page.next_cursor
        headers["Link"] = f'</jobs?{urlencode(following, doseq=True)}>; rel="next"'
    return Response(
        f'{{"jobs":[{jobs}],"next_cursor":{json.dumps(page.next_cursor)}}}',
        headers=headers,
        media_type="application/json",
    )


@router.get(
    "/jobs/{id}",
    operation_id="get_job",
    summary="One job",
    response_model=JobOutput,
    responses=problems(404),
)
async def get_job(
    id: PathId,  # noqa: A002 - the protocol's name
    query: Annotated[JobQuery, Query()],
    request: Request,
    services: Wired,
) -> Response:
    """The job as it stands, or, with `wait_seconds`, as soon as it is final."""
    if query.wait_seconds:
        async with client_gone(request) as gone:
            job = await services.jobs.get_patiently(JobId(id), query.wait_seconds, gone)
    else:
        job = await services.jobs.get(JobId(id))
    return Response(job_json(job), media_type="application/json")


@router.get(
    "/jobs/{id}/events",
    operation_id="list_events",
    summary="A job's trail",
    response_model=EventListOutput,
    responses=problems(404),
)
async def list_events(
    id: PathId,  # noqa: A002 - the protocol's name
    query: Annotated[EventsQuery, Query()],
    services: Wired,
) -> Response:
    """One event for each change of status, oldest first."""
    page = await services.jobs.events(JobId(id), query.limit, query.cursor)
    events = ",".join(map(event_json, page.events))
    return Response(
        f'{{"events":[{events}],"next_cursor":{json.dumps(page.next_cursor)}}}',
        media_type="application/json",
    )


def _call(jobs: list[NewJob], idempotency_key: str | None, request: CheckedRequest) -> CreateCall:
    if idempotency_key is None:
        return CreateCall(jobs)
    key = _checked_key(idempotency_key.strip(" \t"))
    return CreateCall(jobs, key, _hash(request.checked_json))


def _checked_key(key: str) -> str:
    try:
        # Header bytes come as latin-1; their number is what counts.
        return check_name(key.encode("latin-1").decode())
    except ValueError as error:
        what = "must be UTF-8" if isinstance(error, UnicodeError) else str(error)
        raise ValidationFailed(
            f"The Idempotency-Key {what}.", [("header.Idempotency-Key", what)]
        ) from None


def _hash(body: Any) -> str:
    """What tells a repeat from another use: the body as it was sent, keys sorted."""
    canonical = json.dumps(body, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def _filter(query: ListQuery) -> JobFilter:
    return JobFilter(
        statuses=tuple(status.value for status in query.status),
        queues=tuple(query.queue),
        names=tuple(query.name),
        tags=tuple(query.tag),
        workers=tuple(query.worker_id),
        created_after=None if query.created_after is None else Micros(query.created_after),
        created_before=None if query.created_before is None else Micros(query.created_before),
        include=frozenset(query.include),
        newest_first=query.order == "newest",
    )
