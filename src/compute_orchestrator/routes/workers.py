"""GET /workers."""

import json

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse

from compute_orchestrator.routes.deps import Wired
from compute_orchestrator.routes.problems import problems
from compute_orchestrator.routes.requests import ProtocolRoute
from compute_orchestrator.schemas.values import format_moment
from compute_orchestrator.schemas.workers import WorkerListOutput

router = APIRouter(tags=["workers"], route_class=ProtocolRoute)


@router.get(
    "/workers",
    operation_id="list_workers",
    summary="Who works",
    response_model=WorkerListOutput,
    responses=problems(),
)
async def list_workers(services: Wired) -> Response:
    """The workers seen in the last day, the latest first."""
    workers = [
        {
            "worker_id": worker.worker_id,
            "last_seen_at": format_moment(worker.last_seen_at),
            "running": worker.running,
            "about": None if worker.about is None else json.loads(worker.about),
        }
        for worker in await services.workers.all()
    ]
    return JSONResponse({"workers": workers})
