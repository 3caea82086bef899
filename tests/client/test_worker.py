"""Workers against the real app in this process: what becomes of a job that they take."""

import asyncio
import threading
from typing import Any

import httpx
import pytest

from compute_orchestrator.client import (
    Context,
    OrchestratorClient,
    Permanent,
    Retry,
    Snooze,
    Worker,
)
from compute_orchestrator.client.models import Job, Status
from tests.client.wires import Wire, working
from tests.conftest import URL

REPORT = "PATCH /status"
BEAT = "POST /heartbeat"


async def outcome(app: Worker, client: OrchestratorClient, wire: Wire, payload: Any = None) -> Job:
    """Let the worker run a job `task`, and see what it made of it."""
    job = await client.create("task", payload)
    async with working(app):
        await wire.record.until(REPORT)
    return await client.get(job.id)


async def test_an_async_task_runs_on_the_loop(
    app: Worker, client: OrchestratorClient, wire: Wire
) -> None:
    @app.task("task")
    async def task(job: Context, width: int) -> dict[str, object]:
        asyncio.get_running_loop()
        return {"width": width, "attempt": job.attempt, "payload": job.payload, "name": job.name}

    job = await outcome(app, client, wire, {"width": 3})
    assert (job.status, job.locked_by) == (Status.SUCCEEDED, "w")
    assert job.result == {"width": 3, "attempt": 1, "payload": {"width": 3}, "name": "task"}


async def test_a_plain_task_runs_in_a_thread(
    app: Worker, client: OrchestratorClient, wire: Wire
) -> None:
    here = threading.get_ident()

    @app.task("task")
    def task() -> bool:
        return threading.get_ident() != here

    assert (await outcome(app, client, wire)).result is True


async def test_a_queue_full_of_unknown_names_does_not_make_a_busy_loop(
    app: Worker, client: OrchestratorClient, wire: Wire
) -> None:
    app.task("other")(_nothing)
    for _ in range(6):
        await client.create("task")
    loop = asyncio.get_running_loop()
    start = loop.time()
    async with working(app):
        await wire.record.until(REPORT, times=6)
    assert loop.time() - start > (0.05 + 0.1 + 0.2 + 0.4 + 0.8) / 2


async def test_no_more_jobs_run_at_a_time_than_asked_for(
    client: OrchestratorClient, wire: Wire
) -> None:
    app = Worker(URL, concurrency=3, transport=wire)
    running = 0
    most = 0
    full = asyncio.Event()
    go_on = asyncio.Event()

    @app.task("task")
    async def task() -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        if running == 3:
            full.set()
        await go_on.wait()
        running -= 1

    for _ in range(7):
        await client.create("task")
    async with working(app):
        await asyncio.wait_for(full.wait(), 10)
        go_on.set()
        await wire.record.until(REPORT, times=7)
    assert most == 3
    assert (await client.stats()).totals.succeeded == 7


async def test_an_exception_is_a_failure_that_is_tried_again(
    app: Worker, client: OrchestratorClient, wire: Wire
) -> None:
    @app.task("task")
    def task() -> None:
        raise LookupError("no such page")

    job = await outcome(app, client, wire)
    assert (job.status, job.retry_count) == (Status.QUEUED, 1)
    assert job.error is not None
    assert (job.error["type"], job.error["message"]) == ("LookupError", "no such page")
    assert "raise LookupError" in job.error["traceback"]


async def test_a_retry_a_snooze_and_a_permanent_failure_are_obeyed(
    app: Worker, client: OrchestratorClient, wire: Wire
) -> None:
    @app.task("later")
    async def later() -> None:
        raise Retry("rate limited", in_seconds=30)

    @app.task("snooze")
    def snooze() -> None:
        raise Snooze(600)

    @app.task("never")
    def never() -> None:
        raise Permanent("no such user")

    made = {name: (await client.create(name)).id for name in ("later", "snooze", "never")}
    async with working(app):
        await wire.record.until(REPORT, times=3)
    jobs = {name: await client.get(number) for name, number in made.items()}
    assert (jobs["later"].status, jobs["later"].retry_count) == (Status.QUEUED, 1)
    assert _waits(jobs["later"]) == 30
    assert (jobs["snooze"].status, jobs["snooze"].retry_count) == (Status.QUEUED, 0)
    assert _waits(jobs["snooze"]) == 600
    assert (jobs["never"].status, jobs["never"].retry_count) == (Status.FAILED, 0)


async def test_a_payload_that_does_not_fit_fails_for_good_and_names_the_field(
    app: Worker, client: OrchestratorClient, wire: Wire
) -> None:
    @app.task("task")
    def task(width: int) -> None:
        raise AssertionError(f"must not run with {width}")

    job = await outcome(app, client, wire, {"width": "wide"})
    assert (job.status, job.retry_count) == (Status.FAILED, 0)
    assert job.error is not None
    assert job.error["type"] == "PayloadMismatch"
    assert job.error["message"].startswith("width: ")


async def test_a_job_of_an_unknown_name_is_released_for_ten_seconds(
    app: Worker,
    client: OrchestratorClient,
    wire: Wire,
    caplog: pytest.LogCaptureFixture,
) -> None:
    app.task("other")(_nothing)
    job = await outcome(app, client, wire)
    assert (job.status, job.retry_count, job.release_count) == (Status.QUEUED, 0, 1)
    assert _waits(job) == 10
    assert "no task of this name" in caplog.text


async def test_a_result_that_the_server_refuses_fails_the_job_for_good(
    app: Worker, client: OrchestratorClient, wire: Wire
) -> None:
    @app.task("task")
    def task() -> str:
        return "x" * 1_100_000

    job = await client.create("task")
    async with working(app):
        await wire.record.until(REPORT, times=2)
    job = await client.get(job.id)
    assert job.status == Status.FAILED
    assert job.error is not None
    assert job.error["type"] == "ResultRefused"
    assert "1048576" in job.error["message"]


async def test_progress_and_checkpoint_come_with_a_heartbeat(
    app: Worker, client: OrchestratorClient, wire: Wire
) -> None:
    go_on = threading.Event()

    @app.task("task")
    def task(job: Context) -> None:
        job.progress(0.4, "page 2 of 5")
        job.save({"page": 2})
        assert go_on.wait(20)

    job = await client.create("task")
    async with working(app):
        await wire.record.until(BEAT, status=200)
        seen = await client.get(job.id)
        go_on.set()
    assert seen.progress == {"fraction": 0.4, "message": "page 2 of 5"}
    assert seen.checkpoint == {"page": 2}


async def test_the_next_attempt_gets_the_checkpoint_saved_just_before_the_failure(
    app: Worker, client: OrchestratorClient, wire: Wire
) -> None:
    found: list[Any] = []

    @app.task("task")
    async def task(job: Context) -> None:
        found.append(job.checkpoint)
        if job.attempt == 1:
            job.save({"page": 9})
            raise Retry(in_seconds=0)

    job = await client.create("task")
    async with working(app):
        await wire.record.until(REPORT, times=2)
    assert found == [None, {"page": 9}]
    assert (await client.get(job.id)).status == Status.SUCCEEDED


async def test_a_checkpoint_that_the_server_refuses_does_not_cost_the_lease(
    app: Worker, client: OrchestratorClient, wire: Wire, caplog: pytest.LogCaptureFixture
) -> None:
    over = asyncio.Event()

    @app.task("task")
    async def task(job: Context) -> None:
        job.save("x" * 300_000)
        await over.wait()

    job = await client.create("task")
    async with working(app):
        await wire.record.until(BEAT, status=413)
        await wire.record.until(BEAT, status=200)
        over.set()
    assert (await client.get(job.id)).status == Status.SUCCEEDED
    assert "refused progress or checkpoint" in caplog.text


async def test_a_cancel_request_cancels_an_async_task_and_is_acknowledged(
    app: Worker, client: OrchestratorClient, wire: Wire
) -> None:
    started = asyncio.Event()
    cleaned: list[str] = []

    @app.task("task")
    async def task() -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            await client.stats()  # cleaning up may take calls of its own
            cleaned.append("yes")

    job = await client.create("task")
    async with working(app):
        await asyncio.wait_for(started.wait(), 10)
        await client.cancel(job.id)
        await wire.record.until(REPORT)
    assert (await client.get(job.id)).status == Status.CANCELLED
    assert cleaned == ["yes"]
    assert [event.action for event in await client.events(job.id)][-1] == "obey"


async def test_a_plain_task_sees_the_cancel_request_and_its_success_stands(
    app: Worker, client: OrchestratorClient, wire: Wire
) -> None:
    started = threading.Event()
    looked = threading.Event()

    @app.task("task")
    def task(job: Context) -> str:
        started.set()
        while not job.cancel_requested:
            looked.wait(0.02)
        return "as far as it came"

    job = await client.create("task")
    async with working(app):
        await asyncio.to_thread(started.wait, 10)
        await client.cancel(job.id)
        await wire.record.until(REPORT)
    done = await client.get(job.id)
    assert (done.status, done.result) == (Status.SUCCEEDED, "as far as it came")


async def test_a_plain_task_that_raises_after_a_cancel_request_ends_as_cancelled(
    app: Worker, client: OrchestratorClient, wire: Wire
) -> None:
    started = threading.Event()
    looked = threading.Event()

    @app.task("task")
    def task(job: Context) -> None:
        started.set()
        while not job.cancel_requested:
            looked.wait(0.02)
        raise InterruptedError("stopped")

    job = await client.create("task")
    async with working(app):
        await asyncio.to_thread(started.wait, 10)
        await client.cancel(job.id)
        (report,) = await wire.record.until(REPORT)
    assert report.body["status"] == "failed"
    done = await client.get(job.id)
    assert (done.status, done.error and done.error["message"]) == (Status.CANCELLED, "stopped")


@pytest.mark.parametrize("returns", [False, True])
async def test_an_async_task_obeys_by_raising_and_what_it_returns_is_a_success(
    app: Worker, client: OrchestratorClient, wire: Wire, returns: bool
) -> None:
    started = asyncio.Event()

    @app.task("task")
    async def task() -> str:
        started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if not returns:
                raise RuntimeError("half done") from None
        return "as far as it came"

    job = await client.create("task")
    async with working(app):
        await asyncio.wait_for(started.wait(), 10)
        await client.cancel(job.id)
        await wire.record.until(REPORT)
    done = await client.get(job.id)
    if returns:
        assert (done.status, done.result) == (Status.SUCCEEDED, "as far as it came")
    else:
        assert (done.status, done.retry_count) == (Status.CANCELLED, 0)


@pytest.mark.parametrize("error", [Retry(in_seconds=0), Snooze(0), Permanent("no")])
async def test_after_a_cancel_request_whatever_is_raised_ends_the_job_as_cancelled(
    app: Worker, client: OrchestratorClient, wire: Wire, error: Exception
) -> None:
    started = threading.Event()
    looked = threading.Event()

    @app.task("task")
    def task(job: Context) -> None:
        started.set()
        while not job.cancel_requested:
            looked.wait(0.02)
        raise error

    job = await client.create("task")
    async with working(app):
        await asyncio.to_thread(started.wait, 10)
        await client.cancel(job.id)
        await wire.record.until(REPORT)
    assert (await client.get(job.id)).status == Status.CANCELLED


@pytest.mark.parametrize("plain", [False, True])
async def test_a_lost_lease_stops_the_task_and_its_late_report_is_not_sent(
    app: Worker, client: OrchestratorClient, wire: Wire, plain: bool
) -> None:
    started = threading.Event()
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()

    @app.task("other")
    async def other() -> None:
        """The next job: it runs only after the lost one has left its place."""

    if plain:

        @app.task("task")
        def in_thread(job: Context) -> None:
            started.set()
            while not job.cancel_requested:
                threading.Event().wait(0.02)
            loop.call_soon_threadsafe(stopped.set)

    else:

        @app.task("task")
        async def on_loop() -> None:
            started.set()
            try:
                await asyncio.Event().wait()
            finally:
                stopped.set()

    job = await client.create("task")
    async with working(app):
        await asyncio.to_thread(started.wait, 10)
        assert (await client.cancel(job.id, force=True)).status == Status.CANCELLED
        await asyncio.wait_for(stopped.wait(), 10)
        after = await client.create("other")
        (report,) = await wire.record.until(REPORT)
    assert report.path == f"/jobs/{after.id}/status"
    assert wire.record.of(BEAT)[-1].status == 409


async def test_leaving_the_process_in_a_task_does_not_end_the_worker(
    app: Worker, client: OrchestratorClient, wire: Wire
) -> None:
    @app.task("task")
    async def task(job: Context) -> None:
        if job.attempt == 1:
            raise SystemExit(3)

    job = await client.create("task", retry={"base_seconds": 0})
    async with working(app):
        await wire.record.until(REPORT, times=2)
    assert (await client.get(job.id)).status == Status.SUCCEEDED


async def test_a_task_that_is_cancelled_by_itself_has_failed(
    app: Worker, client: OrchestratorClient, wire: Wire
) -> None:
    @app.task("task")
    async def task() -> None:
        raise asyncio.CancelledError

    job = await outcome(app, client, wire)
    assert (job.status, job.retry_count) == (Status.QUEUED, 1)
    assert job.error is not None
    assert job.error["type"] == "CancelledError"


async def test_stopping_lets_running_jobs_finish(
    app: Worker, client: OrchestratorClient, wire: Wire
) -> None:
    started = asyncio.Event()

    @app.task("task")
    async def task() -> str:
        started.set()
        await wire.record.until(BEAT, times=2)  # it is heartbeated while the worker stops
        return "done"

    job = await client.create("task")
    async with working(app):
        await asyncio.wait_for(started.wait(), 10)
    assert (await client.get(job.id)).result == "done"


async def test_what_does_not_finish_in_time_is_handed_back_with_its_checkpoint(
    client: OrchestratorClient, wire: Wire
) -> None:
    app = Worker(URL, concurrency=2, shutdown_seconds=0.1, transport=wire)
    started = asyncio.Event()
    forever = threading.Event()

    @app.task("on-loop")
    async def on_loop(job: Context) -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            job.save({"page": 3})
            raise

    @app.task("in-thread")
    def in_thread() -> None:
        forever.wait(20)

    one, two = [(await client.create(name)).id for name in ("in-thread", "on-loop")]
    async with working(app):
        await asyncio.wait_for(started.wait(), 10)
    forever.set()
    for number in (one, two):
        job = await client.get(number)
        assert (job.status, job.retry_count, job.release_count) == (Status.QUEUED, 0, 1)
    assert (await client.get(two)).checkpoint == {"page": 3}


async def test_a_task_that_breaks_because_it_is_stopped_costs_no_retry(
    client: OrchestratorClient, wire: Wire
) -> None:
    app = Worker(URL, shutdown_seconds=0, transport=wire)
    started = asyncio.Event()

    @app.task("task")
    async def task() -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise RuntimeError("half done") from None

    job = await client.create("task")
    async with working(app):
        await asyncio.wait_for(started.wait(), 10)
    job = await client.get(job.id)
    assert (job.status, job.retry_count, job.release_count) == (Status.QUEUED, 0, 1)


async def test_a_job_that_can_not_be_handed_back_does_not_hold_the_stop(
    client: OrchestratorClient,
    wire: Wire,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("compute_orchestrator.client.serving.RELEASE_SECONDS", 0.2)
    app = Worker(URL, shutdown_seconds=0, transport=wire)
    started = asyncio.Event()

    @app.task("task")
    async def task() -> None:
        started.set()
        await asyncio.Event().wait()

    wire.instead["PATCH /status"] = [httpx.Response(503) for _ in range(100)]
    job = await client.create("task")
    async with asyncio.timeout(5), working(app):
        await asyncio.wait_for(started.wait(), 10)
    assert "could not be handed back" in caplog.text
    assert (await client.get(job.id)).status == Status.RUNNING  # until its lease runs out


async def test_a_claim_that_is_refused_is_tried_again_as_a_new_one(
    app: Worker, client: OrchestratorClient, wire: Wire, caplog: pytest.LogCaptureFixture
) -> None:
    app.task("task")(_nothing)
    wire.instead["POST /claim"] = [httpx.Response(421), httpx.Response(200, text="<html>")]
    loop = asyncio.get_running_loop()
    start = loop.time()
    job = await outcome(app, client, wire)
    assert loop.time() - start > (0.1 + 0.2) / 2
    assert job.status == Status.SUCCEEDED
    assert len({e.body["request_id"] for e in wire.record.of("POST /claim")[:3]}) == 3
    assert caplog.text.count("claiming fails") == 1


async def test_a_claim_that_breaks_in_an_unforeseen_way_does_not_end_the_worker(
    app: Worker,
    client: OrchestratorClient,
    wire: Wire,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    app.task("task")(_nothing)
    sync = OrchestratorClient.sync
    broken = [RuntimeError("unforeseen")]

    async def sync_or_break(self: OrchestratorClient, *args: Any, **options: Any) -> Any:
        if broken:
            raise broken.pop()
        return await sync(self, *args, **options)

    monkeypatch.setattr(OrchestratorClient, "sync", sync_or_break)
    assert (await outcome(app, client, wire)).status == Status.SUCCEEDED
    assert "unforeseen" in caplog.text


async def test_a_report_that_is_refused_for_good_frees_its_place(
    app: Worker, client: OrchestratorClient, wire: Wire
) -> None:
    app.task("task")(_nothing)
    gone = httpx.Response(404, json={"code": "job-not-found"})
    wire.instead["PATCH /status"] = [gone]
    await client.create("task")
    await client.create("task")
    async with working(app):
        reports = await wire.record.until("PATCH /status", times=2)
    assert [report.status for report in reports] == [404, 200]


@pytest.mark.parametrize(
    "answer",
    [
        *(httpx.Response(status) for status in (400, 403, 404, 405, 409, 421, 422)),
        httpx.Response(404, json={"code": "not-found"}),
        httpx.Response(421, json={"code": "host-refused"}),
        httpx.Response(200, text="<html>Welcome</html>"),
        httpx.Response(204),
        httpx.Response(307, headers={"Location": "https://elsewhere.example"}),
    ],
)
async def test_no_answer_but_the_servers_own_ends_a_report(
    app: Worker, client: OrchestratorClient, wire: Wire, answer: httpx.Response
) -> None:
    @app.task("task")
    async def task() -> str:
        return "kept"

    wire.instead[REPORT] = [answer, answer]
    job = await outcome(app, client, wire)
    assert (job.status, job.result) == (Status.SUCCEEDED, "kept")


async def test_a_report_that_never_comes_through_ends_with_its_lease(
    app: Worker, client: OrchestratorClient, wire: Wire, caplog: pytest.LogCaptureFixture
) -> None:
    app.task("task")(_nothing)
    wire.instead[REPORT] = [httpx.Response(404) for _ in range(100)]
    job = await client.create("task")
    async with working(app):
        await wire.record.until(REPORT)
        await client.cancel(job.id, force=True)
        await wire.record.until(BEAT, status=409)
        await client.create("task")
        await wire.record.until("POST /claim", times=2, status=200)
        wire.instead.clear()
    assert "whether the report was taken is not known" in caplog.text


async def test_an_error_that_the_server_refuses_is_reported_without_its_words(
    app: Worker, client: OrchestratorClient, wire: Wire
) -> None:
    @app.task("task")
    async def task() -> None:
        raise Permanent("too long")

    # The call with all that waits, and then the report alone.
    wire.instead["PATCH /status"] = [httpx.Response(413), httpx.Response(413)]
    job = await client.create("task")
    async with working(app):
        await wire.record.until("PATCH /status", times=3)
    job = await client.get(job.id)
    assert (job.status, job.error) == (Status.FAILED, None)


async def test_a_second_stop_releases_at_once(client: OrchestratorClient, wire: Wire) -> None:
    app = Worker(URL, shutdown_seconds=60, transport=wire)
    started = asyncio.Event()

    @app.task("task")
    async def task() -> None:
        started.set()
        await asyncio.Event().wait()

    job = await client.create("task")
    async with asyncio.timeout(10), working(app):
        await asyncio.wait_for(started.wait(), 10)
        app.stop()
    assert (await client.get(job.id)).release_count == 1


async def test_a_worker_that_is_cancelled_from_outside_releases_too(
    client: OrchestratorClient, wire: Wire
) -> None:
    app = Worker(URL, shutdown_seconds=60, transport=wire)
    started = asyncio.Event()

    @app.task("task")
    async def task() -> None:
        started.set()
        await asyncio.Event().wait()

    job = await client.create("task")
    serving = asyncio.create_task(app.serve())
    await asyncio.wait_for(started.wait(), 10)
    serving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await serving
    assert (await client.get(job.id)).release_count == 1


def test_a_worker_is_checked_when_it_is_made() -> None:
    for queues in ((), ["a/b"], ["x" * 201], [f"q{n}" for n in range(33)]):
        with pytest.raises(ValueError, match="queue"):
            Worker(URL, queues=queues)
    with pytest.raises(ValueError, match="worker id"):
        Worker(URL, worker_id="a\nb")
    with pytest.raises(ValueError, match="concurrency"):
        Worker(URL, concurrency=0)
    with pytest.raises(ValueError, match="lease"):
        Worker(URL, lease_seconds=0.5)
    with pytest.raises(TypeError, match="list"):
        Worker(URL, queues="images")
    app = Worker(URL)
    assert app.worker_id != Worker(URL).worker_id
    app.task("task")(_nothing)
    with pytest.raises(ValueError, match="already"):
        app.task("task")(_nothing)


async def test_a_worker_without_a_task_says_so() -> None:
    with pytest.raises(ValueError, match="no task"):
        await Worker(URL).serve()


def _nothing() -> None:
    """A task."""


def _waits(job: Job) -> float:
    """How long after its last change it may run."""
    assert job.run_at is not None
    assert job.updated_at is not None
    return (job.run_at - job.updated_at).total_seconds()
