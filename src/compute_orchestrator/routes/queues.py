"""/queues: what waits in each, and the pause."""

from typing import Annotated

from fastapi import APIRouter, Path, Response
from fastapi.responses import JSONResponse
from pydantic import AfterValidator

from compute_orchestrator.routes.deps import Wired
from compute_orchestrator.routes.problems import problems
from compute_orchestrator.routes.requests import ProtocolRoute
from compute_orchestrator.schemas.queues import QueueInput, QueueListOutput, QueueOutput
from compute_orchestrator.schemas.values import check_segment
from compute_orchestrator.services.queues import PauseCall, Queue

router = APIRouter(tags=["queues"], route_class=ProtocolRoute)


@router.get(
    "/queues",
    operation_id="list_queues",
    summary="All queues",
    response_model=QueueListOutput,
    responses=problems(),
)
async def list_queues(services: Wired) -> Response:
    """Every queue that was ever used or set, by name."""
    return JSONResponse({"queues": [_shown(queue) for queue in await services.queues.all()]})


@router.patch(
    "/queues/{name}",
    operation_id="set_queue",
    summary="Pause or resume a queue",
    response_model=QueueOutput,
    responses=problems(408, 413, 415),
)
async def set_queue(
    name: Annotated[str, Path(min_length=1, max_length=200), AfterValidator(check_segment)],
    body: QueueInput,
    services: Wired,
) -> Response:
    """No claim takes from a paused queue; jobs that run already go on."""
    queue = await services.queues.pause(PauseCall(name, body.paused))
    return JSONResponse(_shown(queue))


def _shown(queue: Queue) -> dict[str, object]:
    return {
        "name": queue.name,
        "paused": queue.paused,
        "queued": queue.waiting.queued,
        "delayed": queue.waiting.delayed,
        "running": queue.waiting.running,
    }
