"""What a worker says of itself and of its jobs: one line an event."""

import asyncio
import json
import logging
from collections.abc import Callable
from typing import Any

import pytest

from compute_orchestrator.client import (
    Context,
    OrchestratorClient,
    Permanent,
    Retry,
    Snooze,
    Worker,
)
from compute_orchestrator.client.context import JobLog
from compute_orchestrator.client.logs import JsonLines
from tests.client.test_tasks import context
from tests.client.wires import Wire, working
from tests.conftest import URL

REPORT = "PATCH /status"


def boom() -> None:
    raise LookupError("no such\npage")


def later() -> None:
    raise Retry("rate limited", in_seconds=30)


def never() -> None:
    raise Permanent("no such user")


def snooze() -> None:
    raise Snooze(600)


def unfit(width: int) -> int:
    return width


def unusable() -> object:
    return object()


def fine(job: Context) -> None:
    job.log.info("half way")


async def lines_of(
    function: Callable[..., Any],
    app: Worker,
    client: OrchestratorClient,
    wire: Wire,
    caplog: pytest.LogCaptureFixture,
    **options: Any,
) -> list[str]:
    """What is logged of a job that the function runs."""
    caplog.set_level(logging.INFO)
    app.task("task")(function)
    await client.create("task", **options)
    async with working(app):
        await wire.record.until(REPORT)
    return [
        f"{it.levelname} {it.getMessage().removeprefix('job 1 (task, attempt 1): ')}"
        for it in caplog.records
        if it.name == "compute_orchestrator.job"
    ]


@pytest.mark.parametrize(
    ("function", "options", "said"),
    [
        (fine, {}, ["INFO half way", "INFO succeeded"]),
        (
            boom,
            {"retry": {"jitter": 0}},
            ["WARNING failed, runs again in 1.0 s (retry 1 of 3): LookupError: no such page"],
        ),
        (boom, {"max_retries": 0}, ["WARNING failed for good: LookupError: no such page"]),
        (
            later,
            {},
            ["WARNING failed, runs again in 30.0 s (retry 1 of 3): Retry: rate limited"],
        ),
        (never, {}, ["WARNING failed for good: Permanent: no such user"]),
        (snooze, {}, ["INFO handed back for 600.0 s: Snooze: snoozed for 600 s"]),
        (unfit, {}, ["WARNING failed for good: PayloadMismatch: width: is missing"]),
    ],
)
async def test_each_end_of_a_job_is_one_line_with_its_reason(
    function: Callable[..., Any],
    options: dict[str, Any],
    said: list[str],
    app: Worker,
    client: OrchestratorClient,
    wire: Wire,
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert await lines_of(function, app, client, wire, caplog, **options) == said


async def test_a_result_that_is_no_json_is_said_in_one_line(
    app: Worker, client: OrchestratorClient, wire: Wire, caplog: pytest.LogCaptureFixture
) -> None:
    (line,) = await lines_of(unusable, app, client, wire, caplog)
    assert line.startswith("WARNING failed for good: ResultUnusable: a result of type object ")


async def test_the_last_failure_says_that_no_retry_is_left(
    app: Worker, client: OrchestratorClient, wire: Wire, caplog: pytest.LogCaptureFixture
) -> None:
    app.task("task")(boom)
    await client.create("task", max_retries=1, retry={"base_seconds": 0})
    async with working(app):
        await wire.record.until(REPORT, times=2)
    assert (
        "job 1 (task, attempt 2): failed, and its retries are used up: LookupError: no such page"
    ) in caplog.messages


async def test_a_worker_says_how_it_starts_what_it_hands_back_and_how_it_stops(
    client: OrchestratorClient, wire: Wire, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    url = URL.replace("//", "//user:secret@")
    app = Worker(
        url,
        queues=["a", "b"],
        concurrency=2,
        worker_id="w",
        shutdown_seconds=0.1,
        transport=wire,
    )
    started = asyncio.Event()

    @app.task("task")
    async def task() -> None:
        started.set()
        await asyncio.Event().wait()

    app.task("other")(boom)
    await client.create("task", queue="b")
    async with working(app):
        await asyncio.wait_for(started.wait(), 10)
    own = [it.getMessage() for it in caplog.records if it.name.startswith("compute_orchestrator.")]
    assert own == [
        f"worker w at {URL}; queues a, b; tasks task, other; 2 at once",
        "stopping: 1 running, with 0.1 s to end; once more hands back at once",
        "job 1 (task, attempt 1): handed back: the worker stops",
    ]


async def test_a_job_that_was_cancelled_is_said_so(
    app: Worker, client: OrchestratorClient, wire: Wire, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    started = asyncio.Event()

    @app.task("task")
    async def task() -> None:
        started.set()
        await asyncio.Event().wait()

    job = await client.create("task")
    async with working(app):
        await asyncio.wait_for(started.wait(), 10)
        await client.cancel(job.id)
        await wire.record.until(REPORT)
    assert "job 1 (task, attempt 1): cancelled, as was asked for" in "\n".join(caplog.messages)


async def test_the_traceback_of_a_failure_is_shown_for_debugging(
    app: Worker, client: OrchestratorClient, wire: Wire, caplog: pytest.LogCaptureFixture
) -> None:
    await lines_of(boom, app, client, wire, caplog)
    assert "Traceback" not in caplog.text
    caplog.set_level(logging.DEBUG, "compute_orchestrator")
    await client.create("task")
    async with working(app):
        await wire.record.until(REPORT, times=2)
    assert "raise LookupError" in caplog.text


def test_a_line_for_machines_has_its_job_as_fields(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    log = JobLog(context().claimed)
    log.info("page %d", 3, extra={"page": 3})
    try:
        boom()
    except LookupError:
        log.exception("broken")
    first, second = [json.loads(JsonLines().format(record)) for record in caplog.records]
    bound = {"job_id": 7, "job_name": "50%", "attempt": 2, "worker_id": "w"}
    assert first.pop("at").endswith("Z")
    assert first == {
        "levelname": "INFO",
        "name": "compute_orchestrator.job",
        "message": "job 7 (50_, attempt 2): page 3",
        "page": 3,
        **bound,
    }
    assert second["exc_info"].startswith("Traceback")
    assert second.items() >= bound.items()
