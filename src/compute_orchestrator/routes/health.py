"""Probes: /livez while the process runs, /readyz (and /health) when it can do its work."""

from typing import Any

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse

from compute_orchestrator.routes.deps import Wired
from compute_orchestrator.routes.problems import problems
from compute_orchestrator.routes.requests import ProtocolRoute
from compute_orchestrator.schemas.health import LiveOutput, ReadyOutput

router = APIRouter(tags=["probes"], route_class=ProtocolRoute)

READY_ANSWERS: dict[int | str, dict[str, Any]] = {
    **problems(),
    503: {"model": ReadyOutput, "description": "Something that must work does not."},
}


@router.get(
    "/livez",
    operation_id="livez",
    summary="Whether the process runs",
    response_model=LiveOutput,
    responses=problems(),
)
async def livez() -> Response:
    """Touches nothing: a server whose store is away is alive."""
    return JSONResponse({"status": "alive"})


async def readyz(services: Wired) -> Response:
    """200 only when the store answers, the schema is current and the reaper is awake."""
    readiness = await services.health.readiness()
    return JSONResponse(
        {
            "status": "ready" if readiness.ready else "not-ready",
            "store": readiness.store,
            "synchronous": readiness.synchronous,
            "schema": readiness.schema,
            "last_pass_seconds": readiness.last_pass_seconds,
        },
        status_code=200 if readiness.ready else 503,
        headers={} if readiness.ready else {"Retry-After": "1"},
    )


for path, name in (("/readyz", "readyz"), ("/health", "health")):
    router.add_api_route(
        path,
        readyz,
        operation_id=name,
        summary="Whether the server can do its work",
        response_model=ReadyOutput,
        responses=READY_ANSWERS,
    )
