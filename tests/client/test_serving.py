"""A worker's jobs that run and that wait, against a server that answers as the test says."""

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from compute_orchestrator.client import Context
from compute_orchestrator.client.attempt import Attempt
from compute_orchestrator.client.calling import Execution
from compute_orchestrator.client.context import Notes
from compute_orchestrator.client.errors import ConnectionBroken
from compute_orchestrator.client.models import Status
from compute_orchestrator.client.reports import Report
from compute_orchestrator.client.serving import Plan, Serving
from compute_orchestrator.client.tasks import Task
from tests.client.fakes import LOST, Call, FakeClient, a_while, claimed


class Work:
    """A task whose runs the test ends."""

    def __init__(self) -> None:
        self.started: list[int] = []
        self.may_end = asyncio.Event()

    async def run(self, job: Context) -> None:
        self.started.append(job.id)
        await self.may_end.wait()

    async def save_and_fail(self, job: Context) -> None:
        job.save("half")
        await self.may_end.wait()
        raise RuntimeError("later")


@pytest.fixture
def server() -> FakeClient:
    return FakeClient()


@pytest.fixture
async def work() -> Work:
    return Work()


def plan(function: Callable[..., Any], **more: Any) -> Plan:
    told: dict[str, Any] = {
        "worker_id": "w",
        "queues": ["q"],
        "concurrency": 1,
        "lease_seconds": None,
        "shutdown_seconds": 10,
        "tasks": {"task": Task.of("task", function)},
        **more,
    }
    return Plan(**told)


@asynccontextmanager
async def serving(server: FakeClient, told: Plan) -> AsyncGenerator[Serving]:
    """It works inside; what is asked after that is answered until it has stopped."""
    serving = Serving(server.as_client, told)
    running = asyncio.create_task(serving.run())
    try:
        yield serving
    finally:
        serving.stop()
        serving.stop()
        while not running.done():
            for call in server.calls:
                if not call.said.done():
                    call.answer()
            await a_while()
        await running


async def holding(server: FakeClient, *, lease_seconds: int = 50) -> Call:
    """The server hands out three jobs, of which two wait; the call in which it is left."""
    (await server.next()).answer([claimed(n, lease_seconds=lease_seconds) for n in (1, 2, 3)])
    await a_while()
    return server.calls[-1]


async def test_what_would_wait_long_is_handed_back_to_keep_its_place(
    server: FakeClient, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("compute_orchestrator.client.serving.LONGEST_WAIT_SECONDS", 0.05)
    async with serving(server, plan(work.run)):
        await holding(server)
        call = await server.next()
        assert call.ids == [2, 3]
        assert {report.status for _, report in call.reports} == {Status.QUEUED}
        assert {report.run_in_seconds for _, report in call.reports} == {None}
        assert call.claim is None
        call.answer()
        await a_while()
        assert server.is_quiet
        assert work.started == [1]


async def test_what_waits_is_started_when_a_place_is_free(server: FakeClient, work: Work) -> None:
    async with serving(server, plan(work.run)):
        await holding(server)
        work.may_end.set()
        call = await server.next()
        assert call.ids == [1, 2, 3]
        assert work.started == [1, 2, 3]


async def test_what_waits_is_handed_back_at_once_at_a_stop_while_the_rest_finishes(
    server: FakeClient, work: Work
) -> None:
    async with serving(server, plan(work.run)) as worker:
        await holding(server)
        worker.stop()
        call = await server.next()
        assert call.ids == [2, 3]
        assert {report.status for _, report in call.reports} == {Status.QUEUED}
        call.answer()
        work.may_end.set()
        call = await server.next()
        assert [report.status for _, report in call.reports] == [Status.SUCCEEDED]
        assert call.claim is None


async def test_what_waits_and_is_to_be_cancelled_is_never_run(
    server: FakeClient, work: Work
) -> None:
    async with serving(server, plan(work.run)):
        await holding(server, lease_seconds=1)
        beats = await server.next()
        assert sorted(beats.ids) == [1, 2, 3]
        beats.answer(cancel_requested=True)
        call = await server.next()
        said = {job.id: report.status for job, report in call.reports}
        assert said == dict.fromkeys((1, 2, 3), Status.CANCELLED)
        assert work.started == [1]


async def test_what_waits_and_is_lost_is_dropped(server: FakeClient, work: Work) -> None:
    async with serving(server, plan(work.run)):
        await holding(server, lease_seconds=1)
        (await server.next()).answer(problems={2: LOST})
        work.may_end.set()
        call = await server.next()
        assert call.ids == [1, 3]
        assert work.started == [1, 3]


async def test_a_job_that_comes_a_second_time_is_run_once(server: FakeClient, work: Work) -> None:
    """As when a claim was answered twice."""
    async with serving(server, plan(work.run, concurrency=4)):
        (await server.next()).answer([claimed(1)])
        (await server.next()).answer([claimed(1), claimed(2)])
        await a_while()
        assert work.started == [1, 2]


async def test_a_job_that_comes_cancelled_is_not_run(server: FakeClient, work: Work) -> None:
    async with serving(server, plan(work.run)):
        cancelled = claimed(1).model_copy(update={"cancel_requested": True})
        (await server.next()).answer([cancelled])
        call = await server.next()
        assert [report.status for _, report in call.reports] == [Status.CANCELLED]
        assert work.started == []


async def test_never_more_than_three_calls_are_under_way(server: FakeClient, work: Work) -> None:
    async with serving(server, plan(work.run, concurrency=4)):
        (await server.next()).answer([claimed(n, lease_seconds=1) for n in (1, 2, 3)])
        poll = await server.next()
        assert poll.claim is not None
        beats = await server.next()
        assert sorted(beats.ids) == [1, 2, 3]
        work.may_end.set()
        report = await server.next()
        assert (report.ids, report.claim) == ([1, 2, 3], None)
        poll.answer([claimed(4)])  # it ends at once, and leaves room
        await a_while()
        assert server.is_quiet  # both wait for the report that is under way
        report.answer()
        call = await server.next()
        assert call.ids == [4]
        assert call.claim is not None


async def test_a_worker_that_drains_returns_when_nothing_is_left(server: FakeClient) -> None:
    async def nothing() -> None:
        """A task."""

    worker = Serving(server.as_client, plan(nothing, drain=True))
    running = asyncio.create_task(worker.run())
    (await server.next()).answer([claimed(1)])
    (await server.next()).answer()
    (await server.next()).answer()
    await asyncio.wait_for(running, 10)
    assert [call.ids for call in server.calls] == [[], [1], []]


async def test_a_task_that_is_stopped_before_its_first_step_is_over_at_once() -> None:
    """asyncio never enters it."""

    async def never() -> None:
        raise AssertionError

    over: list[Attempt] = []
    attempt = Attempt(
        claimed(), Task.of("task", never), 0, on_lost=over.append, on_cancel=over.append
    )
    attempt.start(Notes(), over.append, threads=anyio.CapacityLimiter(1))
    attempt.hand_back()
    assert over == [attempt]
    assert attempt.report == Report.released()
    assert not attempt.is_stuck


async def test_threads_that_are_left_behind_are_known(server: FakeClient) -> None:
    started, may_end = threading.Event(), threading.Event()

    def stubborn() -> None:
        started.set()
        may_end.wait(20)

    async with serving(server, plan(stubborn)) as worker:
        (await server.next()).answer([claimed(1, lease_seconds=50)])
        await asyncio.to_thread(started.wait, 10)
        assert not worker.is_stuck or worker.running
        worker.stop()
        worker.stop()
        call = await server.next()
        assert [report.status for _, report in call.reports] == [Status.QUEUED]
        assert worker.is_stuck
        may_end.set()


async def test_a_checkpoint_that_is_on_its_way_arrives_before_the_report_that_ends_the_lease(
    server: FakeClient, work: Work
) -> None:
    """The next attempt needs it. Until it has arrived, the job keeps its place."""
    async with serving(server, plan(work.save_and_fail)):
        (await server.next()).answer([claimed(1, lease_seconds=50)])
        beat = await server.next()
        assert [item.checkpoint for item in beat.heartbeats] == ["half"]
        work.may_end.set()
        await a_while()
        assert server.is_quiet
        beat.answer()
        report = await server.next()
        assert [said.status for _, said in report.reports] == [Status.FAILED]


async def test_a_checkpoint_whose_heartbeat_failed_is_sent_before_the_report(
    server: FakeClient, work: Work
) -> None:
    async with serving(server, plan(work.save_and_fail)):
        (await server.next()).answer([claimed(1, lease_seconds=50)])
        beat = await server.next()
        work.may_end.set()
        await a_while()
        beat.fail(ConnectionBroken("no answer"))
        again = await server.next()
        assert [item.checkpoint for item in again.heartbeats] == ["half"]
        again.answer()
        assert [said.status for _, said in (await server.next()).reports] == [Status.FAILED]


async def test_a_task_that_can_not_be_started_has_failed(
    server: FakeClient, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def no_thread(_execution: Execution) -> None:
        raise BlockingIOError("no more processes")

    monkeypatch.setattr(Execution, "run", no_thread)
    async with serving(server, plan(work.run)):
        (await server.next()).answer([claimed(1, lease_seconds=50)])
        ((_, report),) = (await server.next()).reports
        assert report.status is Status.FAILED
        assert (report.error or {})["message"] == "no more processes"
