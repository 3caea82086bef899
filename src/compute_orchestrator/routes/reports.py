"""PATCH /jobs/{id}/status."""

from fastapi import APIRouter, Response

from compute_orchestrator.domain.values import JobId
from compute_orchestrator.routes.deps import Limits, Wired
from compute_orchestrator.routes.direct import DirectRoute
from compute_orchestrator.routes.problems import problems
from compute_orchestrator.schemas.jobs import JobOutput, job_json
from compute_orchestrator.schemas.reports import ReportInput
from compute_orchestrator.schemas.values import PathId

router = APIRouter(tags=["workers"], route_class=DirectRoute)


@router.patch(
    "/jobs/{id}/status",
    operation_id="report_job",
    summary="Report what came of an attempt",
    response_model=JobOutput,
    responses=problems(404, 408, 409, 413, 415),
)
async def report_job(
    id: PathId,  # noqa: A002 - the protocol's name
    body: ReportInput,
    services: Wired,
    limits: Limits,
) -> Response:
    """The lease holder's word. Repeated with the same token it answers the job as it stands."""
    report = body.of(
        body.worker_id, JobId(id), max_result_bytes=limits.result, max_error_bytes=limits.error
    )
    job = await services.reports.report(report)
    return Response(job_json(job), media_type="application/json")
