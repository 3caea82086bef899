"""GET /stats."""

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse

from compute_orchestrator.routes.deps import Wired
from compute_orchestrator.routes.problems import problems
from compute_orchestrator.routes.requests import ProtocolRoute
from compute_orchestrator.schemas.stats import StatsOutput
from compute_orchestrator.schemas.values import format_moment

router = APIRouter(tags=["queues"], route_class=ProtocolRoute)


@router.get(
    "/stats",
    operation_id="get_stats",
    summary="What waits, what was done",
    response_model=StatsOutput,
    responses=problems(),
)
async def get_stats(services: Wired) -> Response:
    """Counts for each queue and in all, from counters that are kept."""
    stats = await services.stats.stats()
    totals = stats.totals
    return JSONResponse(
        {
            "now": format_moment(stats.now),
            "queues": {
                name: {
                    "queued": waiting.queued,
                    "delayed": waiting.delayed,
                    "running": waiting.running,
                    "oldest_queued_seconds": stats.oldest_queued_seconds.get(name),
                }
                for name, waiting in sorted(stats.queues.items())
            },
            "totals": {
                "created": totals.created,
                "succeeded": totals.succeeded,
                "failed": totals.failed,
                "exhausted": totals.exhausted,
                "cancelled": totals.cancelled,
                "retried": totals.retried,
                "lost": totals.lost,
            },
            "last_minute": {
                "created": stats.last_minute.created,
                "finished": stats.last_minute.finished,
            },
        }
    )
