"""One task called alone, without a server and a worker: what came of it, what would be reported."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import anyio

from compute_orchestrator.client.calling import Execution, Middleware
from compute_orchestrator.client.context import Context, JobLog, Notes
from compute_orchestrator.client.functions import TaskFunction
from compute_orchestrator.client.models import ClaimedJob, Json
from compute_orchestrator.client.outcomes import (
    Ended,
    PayloadMismatch,
    Raised,
    Stopped,
    report_of,
)
from compute_orchestrator.client.reports import Report
from compute_orchestrator.client.tasks import Task

LEASE_SECONDS = 60


@dataclass(frozen=True)
class Outcome:
    report: Report
    """What a worker would report: its status, its result or error, when it is to run again."""
    raised: BaseException | None
    """What the task raised; None where it returned."""
    checkpoint: Json
    """What was saved last, by this run or before it."""
    progress: Json
    """What `job.progress()` said last, or None."""

    @property
    def result(self) -> Json:
        """What the task returned, as JSON. What it raised is raised again."""
        if self.raised is not None:
            raise self.raised
        return self.report.result


async def call_task(
    task: TaskFunction[..., ..., Any],
    payload: Json = None,
    *,
    attempt: int = 1,
    checkpoint: Json = None,
    state: object = None,
    middleware: Sequence[Middleware] = (),
) -> Outcome:
    """Run a task once, as a worker would: its payload is checked, its result made JSON.

    `state` is what the worker's lifespan would have yielded. A timeout is the server's business,
    and does not end a task here; one that has a process of its own runs in a thread.
    """
    alone = replace(task.task, processes=None)
    job = _job(alone, payload, attempt, checkpoint)
    notes = Notes()
    context = Context(job, notes, JobLog(job), state)
    ended = await _end(alone, payload, context, middleware)
    note = notes.take()
    return Outcome(report_of(ended), _raised(ended), context.checkpoint, note.progress)


async def _end(
    task: Task, payload: Json, context: Context, middleware: Sequence[Middleware]
) -> Ended:
    try:
        arguments = task.bind(payload, context)
    except PayloadMismatch as mismatch:
        return Raised(mismatch)
    threads = anyio.CapacityLimiter(1)
    ended = await Execution(task, arguments, context, threads=threads, middleware=middleware).run()
    if isinstance(ended, Stopped) and isinstance(ended.error, asyncio.CancelledError):
        raise ended.error  # the test itself was cancelled
    return ended


def _raised(ended: Ended) -> BaseException | None:
    return ended.error if isinstance(ended, Raised | Stopped) else None


def _job(task: Task, payload: Json, attempt: int, checkpoint: Json) -> ClaimedJob:
    now = datetime.now(UTC)
    return ClaimedJob(
        id=1,
        queue="default",
        name=task.name,
        status="running",
        payload=payload,
        attempt=attempt,
        checkpoint=checkpoint,
        lease_token="none",  # noqa: S106 - there is no server that would know it
        locked_by="call_task",
        locked_at=now,
        lease_expires_at=now + timedelta(seconds=LEASE_SECONDS),
    )
