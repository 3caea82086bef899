"""POST /jobs/claim."""

from fastapi import APIRouter, Request, Response

from compute_orchestrator.routes.connection import client_gone
from compute_orchestrator.routes.deps import Wired
from compute_orchestrator.routes.direct import DirectRoute
from compute_orchestrator.routes.problems import problems
from compute_orchestrator.schemas.claims import ClaimInput, ClaimOutput
from compute_orchestrator.schemas.jobs import job_json

router = APIRouter(tags=["workers"], route_class=DirectRoute)


@router.post(
    "/jobs/claim",
    operation_id="claim_job",
    summary="Claim a job",
    response_model=ClaimOutput,
    responses={
        204: {"description": "There is nothing to do.", "model": None},
        **problems(408, 413, 415),
    },
)
async def claim_job(body: ClaimInput, request: Request, services: Wired) -> Response:
    """The job that goes first, under a new lease; 204 where there is none, with `wait_seconds`
    when that time is over.

    With a `request_id` the claim may be repeated: while its lease runs it gives the same one.
    Without, a client that went away before the answer has its lease handed back.
    """
    asked = body.of(body.worker_id)
    if body.wait_seconds:
        async with client_gone(request) as gone:
            jobs = await services.claims.claim_patiently(asked, body.wait_seconds, gone)
    else:
        jobs = await services.claims.claim(asked)
    if not jobs:
        return Response(status_code=204)
    if body.request_id is None and await request.is_disconnected():
        await services.claims.hand_back(jobs)
        return Response(status_code=204)
    return Response(job_json(jobs[0], with_token=True), media_type="application/json")
