"""POST /jobs/{id}/heartbeat."""

from fastapi import APIRouter, Response

from compute_orchestrator.domain.values import JobId
from compute_orchestrator.routes.deps import Limits, Wired
from compute_orchestrator.routes.direct import DirectRoute
from compute_orchestrator.routes.problems import problems
from compute_orchestrator.schemas.heartbeats import (
    HeartbeatInput,
    HeartbeatOutput,
    lease_state_json,
)
from compute_orchestrator.schemas.values import PathId

router = APIRouter(tags=["workers"], route_class=DirectRoute)


@router.post(
    "/jobs/{id}/heartbeat",
    operation_id="heartbeat",
    summary="Keep a lease alive",
    response_model=HeartbeatOutput,
    responses=problems(404, 408, 409, 413, 415),
)
async def heartbeat(
    id: PathId,  # noqa: A002 - the protocol's name
    body: HeartbeatInput,
    services: Wired,
    limits: Limits,
) -> Response:
    """Extend the lease by its length, never past the attempt's `timeout_seconds`."""
    beat = body.of(
        body.worker_id,
        JobId(id),
        max_progress_bytes=limits.progress,
        max_checkpoint_bytes=limits.checkpoint,
    )
    state = await services.heartbeats.beat(beat)
    return Response(lease_state_json(state), media_type="application/json")
