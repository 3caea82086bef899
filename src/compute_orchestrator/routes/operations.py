"""What an operator does: cancel, retry, reap."""

from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, Query, Response
from fastapi.responses import JSONResponse

from compute_orchestrator.domain.values import JobId
from compute_orchestrator.routes.deps import Wired
from compute_orchestrator.routes.problems import problems
from compute_orchestrator.routes.requests import ProtocolRoute
from compute_orchestrator.schemas.jobs import JobOutput, job_json
from compute_orchestrator.schemas.operations import CancelQuery, ReapOutput, RetryQuery
from compute_orchestrator.schemas.values import PathId
from compute_orchestrator.services.operations import CancelCall, RetryCall

router = APIRouter(tags=["operators"], route_class=ProtocolRoute)


@router.post(
    "/jobs/{id}/cancel",
    operation_id="cancel_job",
    summary="Cancel a job",
    response_model=JobOutput,
    responses=problems(404, 408, 409, 413, 415),
)
async def cancel_job(
    id: PathId,  # noqa: A002 - the protocol's name
    query: Annotated[CancelQuery, Query()],
    services: Wired,
) -> Response:
    """A waiting job ends. A running one is marked, and its worker told at its next heartbeat;
    with `force` it ends at once. One-way: such a job never goes back to the queue.
    """
    job = await services.operations.cancel(CancelCall(JobId(id), force=query.force))
    return Response(job_json(job), media_type="application/json")


@router.post(
    "/jobs/{id}/retry",
    operation_id="retry_job",
    summary="Queue a final job again",
    response_model=JobOutput,
    responses=problems(404, 408, 409, 413, 415),
)
async def retry_job(
    id: PathId,  # noqa: A002 - the protocol's name
    query: Annotated[RetryQuery, Query()],
    services: Wired,
) -> Response:
    """With a fresh retry budget. A job that succeeded runs once more only with `again`."""
    job = await services.operations.retry(RetryCall(JobId(id), again=query.again))
    return Response(job_json(job), media_type="application/json")


@router.post(
    "/jobs/reap",
    operation_id="reap_jobs",
    summary="Run the reaper now",
    response_model=ReapOutput,
    responses=problems(408, 413, 415),
)
async def reap_jobs(services: Wired) -> Response:
    """One pass, the same as the one in the background."""
    return JSONResponse(asdict(await services.reaper.reap_once()))
