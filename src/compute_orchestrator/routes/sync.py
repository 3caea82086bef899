"""POST /workers/{worker_id}/sync."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from fastapi import APIRouter, Request, Response

from compute_orchestrator.domain.errors import OrchestratorError
from compute_orchestrator.domain.values import JobId
from compute_orchestrator.routes.connection import client_gone
from compute_orchestrator.routes.deps import Limits, Wired
from compute_orchestrator.routes.direct import DirectRoute
from compute_orchestrator.routes.problems import problem_json, problems, validation_failed
from compute_orchestrator.schemas.heartbeats import lease_state_json
from compute_orchestrator.schemas.jobs import jobs_json
from compute_orchestrator.schemas.sync import BadItem, SyncInput, SyncOutput, given_id
from compute_orchestrator.schemas.values import Input, PathSegment
from compute_orchestrator.services.sync import SyncCall

Asked = TypeVar("Asked", bound=Input)
Answer = TypeVar("Answer")
Read = TypeVar("Read")

router = APIRouter(tags=["workers"], route_class=DirectRoute)


@router.post(
    "/workers/{worker_id}/sync",
    operation_id="sync",
    summary="Report, heartbeat and claim in one call",
    response_model=SyncOutput,
    response_model_exclude_unset=True,
    responses=problems(408, 413, 415),
)
async def sync(
    worker_id: PathSegment, body: SyncInput, request: Request, services: Wired, limits: Limits
) -> Response:
    """One round trip for a busy worker. Each item is committed and answered by itself, as its
    single call would be; a bad one never spoils its neighbours.

    After a 503 the call is repeated as it is.
    """
    claim = body.claim
    call = SyncCall(
        worker_id,
        None if body.about is None else body.about.to_json(),
        _read(
            "reports",
            body.reports,
            lambda it: it.of(
                worker_id,
                JobId(it.id),
                max_result_bytes=limits.result,
                max_error_bytes=limits.error,
            ),
        ),
        _read(
            "heartbeats",
            body.heartbeats,
            lambda it: it.of(
                worker_id,
                JobId(it.id),
                max_progress_bytes=limits.progress,
                max_checkpoint_bytes=limits.checkpoint,
            ),
        ),
        None if claim is None else claim.of(worker_id, claim.limit),
        0 if claim is None else claim.wait_seconds or 0,
    )
    if call.wait_seconds:
        async with client_gone(request) as gone:
            answer = await services.sync.sync(call, gone)
    else:
        answer = await services.sync.sync(call)
    reports = ",".join(
        _item(given_id(asked), it, lambda job: f'{{"id":{job.id},"status":"{job.status.value}"}}')
        for asked, it in zip(body.reports, answer.reports, strict=True)
    )
    heartbeats = ",".join(
        _item(given_id(asked), it, lease_state_json)
        for asked, it in zip(body.heartbeats, answer.heartbeats, strict=True)
    )
    repeatable = claim is None or claim.request_id is not None
    if answer.jobs and not repeatable and await request.is_disconnected():
        await services.claims.hand_back(answer.jobs)
    jobs = jobs_json(answer.jobs, with_token=True)
    return Response(
        f'{{"reports":[{reports}],"heartbeats":[{heartbeats}],"jobs":[{jobs}]}}',
        media_type="application/json",
    )


def _read(
    place: str, items: Sequence[Asked | BadItem], to_domain: Callable[[Asked], Read]
) -> list[Read | OrchestratorError]:
    """Each item as it is meant, or the error that it alone is answered."""
    read: list[Read | OrchestratorError] = []
    for number, item in enumerate(items):
        if isinstance(item, BadItem):
            faults = [{**it, "loc": ("body", place, number, *it["loc"])} for it in item.faults]
            read.append(validation_failed(faults))
            continue
        try:
            read.append(to_domain(item))
        except OrchestratorError as error:
            read.append(error)
    return read


def _item(
    job_id: int | None, answer: Answer | OrchestratorError, shown: Callable[[Answer], str]
) -> str:
    if not isinstance(answer, OrchestratorError):
        return shown(answer)
    return f'{{"id":{"null" if job_id is None else job_id},"problem":{problem_json(answer)}}}'
