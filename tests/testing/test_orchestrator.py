"""The server that a test of workers has for itself: its time, its jobs, its end."""

import asyncio
import gc
import math
import threading
from collections.abc import AsyncGenerator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from compute_orchestrator.client import Context, OrchestratorClient, Retry, Worker, errors
from compute_orchestrator.client.models import Job, Status
from compute_orchestrator.domain.values import Micros, micros
from compute_orchestrator.testing import BlockingOrchestrator, Orchestrator, store
from compute_orchestrator.testing.clock import StillClock
from compute_orchestrator.testing.server import URL, Server

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)


@pytest.fixture
async def orchestrator() -> AsyncGenerator[Orchestrator]:
    async with Orchestrator(now=NOON) as orchestrator:
        yield orchestrator


@pytest.fixture
def app() -> Worker:
    """Made for another address; its jobs come from the server of the test."""
    return Worker("http://orchestrator.example/behind/a/proxy", worker_id="w")


async def trail(orchestrator: Orchestrator, job: Job) -> list[tuple[str, float]]:
    """What happened to a job, and how many seconds after noon."""
    events = await orchestrator.events(job)
    return [(event.action, (event.at - NOON).total_seconds()) for event in events]


async def test_a_job_is_run_by_the_users_worker(orchestrator: Orchestrator, app: Worker) -> None:
    @app.task("double")
    async def double(number: int) -> int:
        return 2 * number

    jobs = [await orchestrator.submit("double", {"number": number}) for number in range(20)]
    await orchestrator.run(app)
    assert [(await orchestrator.job(job)).result for job in jobs] == [2 * n for n in range(20)]


async def test_a_retry_runs_when_its_time_has_come_and_not_before(
    orchestrator: Orchestrator, app: Worker
) -> None:
    runs: list[datetime] = []

    @app.task("fetch")
    async def fetch(job: Context) -> str:
        runs.append(orchestrator.clock.now())
        if job.attempt == 1:
            raise Retry(in_seconds=30)
        return "here"

    job = await orchestrator.client.create("fetch")
    await orchestrator.run(app)
    await orchestrator.clock.advance(29.999999)
    await orchestrator.run(app)
    assert (await orchestrator.job(job)).status == Status.QUEUED
    await orchestrator.clock.advance(0.000001)
    await orchestrator.run(app)
    assert (await orchestrator.job(job)).result == "here"
    assert runs == [NOON, NOON + timedelta(seconds=30)]


async def test_a_job_that_always_fails_is_exhausted(
    orchestrator: Orchestrator, app: Worker
) -> None:
    @app.task("fail")
    def fail() -> None:
        raise LookupError("no such page")

    retry = {"base_seconds": 10, "factor": 3, "jitter": 0}
    job = await orchestrator.client.create("fail", max_retries=2, retry=retry)
    for wait in (10, 30, 0):
        await orchestrator.run(app)
        await orchestrator.clock.advance(wait)
    assert (await orchestrator.job(job)).status == Status.EXHAUSTED
    fails = [seconds for action, seconds in await trail(orchestrator, job) if action == "fail"]
    assert fails == [0, 10, 40]


async def test_a_delayed_job_waits_for_its_time(orchestrator: Orchestrator, app: Worker) -> None:
    ran: list[int] = []

    @app.task("remind")
    async def remind(job: Context) -> None:
        ran.append(job.id)

    tomorrow = await orchestrator.client.create("remind", run_at=NOON + timedelta(days=1))
    soon = await orchestrator.client.create("remind", run_in_seconds=60)
    for seconds, expected in ((59, []), (1, [soon.id]), (86_339, [soon.id])):
        await orchestrator.clock.advance(seconds)
        await orchestrator.run(app)
        assert ran == expected
    await orchestrator.clock.advance(1)
    await orchestrator.run(app)
    assert ran == [soon.id, tomorrow.id]


async def test_what_becomes_due_on_the_way_happens_at_its_own_moment(
    orchestrator: Orchestrator,
) -> None:
    """A lease of 60 s runs out, the retry after it is due 5 s later, and nobody comes: all of it
    within one move of the clock.
    """
    job = await orchestrator.client.create("x", retry={"base_seconds": 5, "jitter": 0})
    assert await orchestrator.client.claim("gone") is not None
    await orchestrator.clock.advance(3 * 86_400)
    assert await trail(orchestrator, job) == [("create", 0), ("claim", 0), ("lose", 60)]
    again = await orchestrator.job(job)
    assert (again.status, again.run_at) == (Status.QUEUED, NOON + timedelta(seconds=65))
    assert await orchestrator.client.claim("next") is not None


@pytest.mark.parametrize("lease_seconds", [7, 86_400])
async def test_a_lease_that_was_lost_long_after_all_was_quiet_is_taken_on_time(
    orchestrator: Orchestrator, lease_seconds: float
) -> None:
    """The reaper trusts no lease that it did not watch; a quiet day must not make it blind."""
    await orchestrator.clock.advance(86_400)
    await orchestrator.client.create("x", lease_seconds=lease_seconds)
    for _ in range(2):
        claimed = await orchestrator.client.claim("gone")
        assert claimed is not None
        assert (await orchestrator.lose(claimed)).status == Status.QUEUED
        assert claimed.lease_expires_at == orchestrator.clock.now()
        await orchestrator.clock.advance(86_400)


async def test_a_lease_that_ran_out_unseen_is_taken_once_it_was_watched_for_as_long() -> None:
    clock = StillClock(NOON)
    server = Server(clock, {})
    server.start()
    try:
        client = OrchestratorClient(URL, transport=server)
        await client.create("x", lease_seconds=7)
        claimed = await client.claim("gone")
        assert claimed is not None
        clock.move_to(Micros(clock.now() + micros(3 * 3600)))
        for expected in (Status.RUNNING, Status.QUEUED):
            await server.pass_time(micros(3.5))
            assert (await client.get(claimed.id)).status == expected
    finally:
        server.stop()


async def test_a_job_that_kills_its_workers_is_exhausted(orchestrator: Orchestrator) -> None:
    job = await orchestrator.client.create("poison", max_retries=1)
    for expected in (Status.QUEUED, Status.EXHAUSTED):
        assert await orchestrator.client.claim("victim") is not None
        assert (await orchestrator.lose(job)).status == expected
        await orchestrator.clock.advance(3600)
    with pytest.raises(ValueError, match="is exhausted: nobody holds"):
        await orchestrator.lose(job)


async def test_a_task_that_hangs_runs_into_its_timeout(
    orchestrator: Orchestrator, app: Worker
) -> None:
    hangs = asyncio.Event()

    @app.task("hang")
    async def hang() -> None:
        hangs.set()
        await asyncio.Event().wait()

    job = await orchestrator.client.create("hang", timeout_seconds=300, max_retries=0)
    async with orchestrator.working(app):
        await hangs.wait()
        await orchestrator.clock.advance(299)
        assert (await orchestrator.job(job)).status == Status.RUNNING
        await orchestrator.clock.advance(1)
        assert (await orchestrator.job(job)).status == Status.EXHAUSTED
    assert (await orchestrator.events(job))[-1].reason == "timeout"


async def test_a_living_worker_keeps_its_lease_until_it_is_to_lose_it(
    orchestrator: Orchestrator,
) -> None:
    started, stopped = asyncio.Event(), asyncio.Event()
    app = Worker(worker_id="w", lease_seconds=1)  # it heartbeats, and so learns of it, at a third

    @app.task("hang")
    async def hang() -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()

    job = await orchestrator.client.create("hang", retry={"base_seconds": 60})
    async with orchestrator.working(app):
        await started.wait()
        await orchestrator.clock.advance(10)
        assert (await orchestrator.job(job)).status == Status.RUNNING
        assert not stopped.is_set()
        assert (await orchestrator.lose(job)).status == Status.QUEUED
        await asyncio.wait_for(stopped.wait(), 10)


async def test_a_run_that_does_not_end_says_what_runs(
    orchestrator: Orchestrator, app: Worker
) -> None:
    @app.task("hang")
    async def hang() -> None:
        await asyncio.Event().wait()

    job = await orchestrator.client.create("hang")
    with pytest.raises(TimeoutError, match=rf"running: {job.id} \(hang\)"):
        await orchestrator.run(app, timeout_seconds=0.2)
    assert (await orchestrator.job(job)).status == Status.QUEUED


async def test_a_worker_beside_the_test_hands_back_at_its_end(
    orchestrator: Orchestrator, app: Worker
) -> None:
    started = asyncio.Event()

    @app.task("hang")
    async def hang() -> None:
        started.set()
        await asyncio.Event().wait()

    job = await orchestrator.client.create("hang")
    async with orchestrator.working(app):
        await started.wait()
    assert [event.action for event in await orchestrator.events(job)] == [
        "create",
        "claim",
        "release",
    ]


async def test_a_worker_is_given_back_as_it_was(orchestrator: Orchestrator, app: Worker) -> None:
    @app.task("x")
    async def x() -> None: ...

    before = app.url, app.metrics_port
    await orchestrator.run(app)
    assert (app.url, app.metrics_port) == before


async def test_two_servers_know_nothing_of_each_other(orchestrator: Orchestrator) -> None:
    async with Orchestrator() as other:
        job = await orchestrator.client.create("x")
        assert [it async for it in other.client.iter_jobs()] == []
        with pytest.raises(errors.JobNotFound):
            await other.job(job)


async def test_a_client_of_the_tests_own_comes_to_the_server(orchestrator: Orchestrator) -> None:
    async with OrchestratorClient(orchestrator.url, transport=orchestrator.transport) as client:
        job = await client.create("x")
    assert (await orchestrator.job(job.id)).name == "x"


async def test_settings_are_the_tests_and_not_the_machines(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ORC_LEASE_SECONDS", "1000")
    monkeypatch.setenv("ORC_MAX_PAYLOAD_BYTES", "1")
    async with Orchestrator(lease_seconds=30) as orchestrator:
        await orchestrator.client.create("x", {"more": "than one byte"})
        claimed = await orchestrator.client.claim("w")
    assert claimed is not None
    assert claimed.held_seconds == 30


@pytest.mark.parametrize("seconds", [-1, math.nan, math.inf])
async def test_time_goes_only_on(orchestrator: Orchestrator, seconds: float) -> None:
    with pytest.raises(ValueError, match="time goes on"):
        await orchestrator.clock.advance(seconds)
    assert orchestrator.clock.now() == NOON


async def test_a_server_that_has_ended_says_so() -> None:
    async with Orchestrator() as orchestrator:
        pass
    with pytest.raises(errors.ConnectFailed, match="does not run"):
        await orchestrator.client.stats()
    with pytest.raises(RuntimeError, match="does not run"):
        await orchestrator.clock.advance(1)
    with pytest.raises(RuntimeError, match="started once"):
        orchestrator.start()


def test_a_test_without_a_loop_has_the_same(app: Worker) -> None:
    @app.task("fetch")
    def fetch(job: Context) -> int:
        if job.attempt == 1:
            raise Retry(in_seconds=30)
        return job.attempt

    with BlockingOrchestrator(now=NOON) as orchestrator:
        job = orchestrator.submit("fetch")
        orchestrator.run(app)
        orchestrator.clock.advance(30)
        assert orchestrator.clock.now() == NOON + timedelta(seconds=30)
        with orchestrator.working(app):
            assert job.result(timeout_seconds=10) == 2
        assert [event.action for event in orchestrator.events(job)][-1] == "succeed"
        later = orchestrator.client.create("fetch")
        assert orchestrator.client.claim("gone") is not None
        assert orchestrator.lose(later).retry_count == 1


def test_nothing_is_left_behind(
    app: Worker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "RAM_DISK", tmp_path)  # other tests use the real one meanwhile
    app.task("x")(lambda: None)
    threads = set(threading.enumerate())
    for _ in range(3):
        with BlockingOrchestrator() as orchestrator:
            orchestrator.submit("x")
            orchestrator.run(app)
            with orchestrator.working(app):
                pass
            assert len(list(tmp_path.glob("orc-*/orc.db"))) == 1
    gc.collect()  # what was not closed is a ResourceWarning, and that an error
    assert set(threading.enumerate()) - threads == set()
    assert list(tmp_path.iterdir()) == []
