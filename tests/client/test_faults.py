"""Lost answers, and a server that goes away: cut on a socket, in front of a real HTTP server."""

import asyncio
import logging
import socket
import threading

import httpx
import pytest

from compute_orchestrator.client import Context, OrchestratorClient, Patience, Worker, errors
from compute_orchestrator.client.models import Job, Status
from tests.client.wires import LOCAL, Proxy, answering, working

LEASE_SECONDS = 1.5
QUICK = Patience(total_seconds=2, first_wait_seconds=0.01, jitter_seconds=0)
NOT_FOUND = (
    b"HTTP/1.1 404 Not Found\r\nContent-Type: text/plain\r\nContent-Length: 9\r\n\r\nNot Found"
)


@pytest.fixture
def straight(server_port: int) -> OrchestratorClient:
    """A client that goes round the proxy, to see how things stand."""
    return OrchestratorClient(f"http://{LOCAL}:{server_port}")


@pytest.fixture
def client(proxy: Proxy) -> OrchestratorClient:
    return OrchestratorClient(proxy.url, patience=QUICK)


@pytest.fixture
def app(proxy: Proxy) -> Worker:
    return Worker(proxy.url, lease_seconds=3)


async def test_a_create_whose_answer_was_lost_makes_one_job(
    client: OrchestratorClient, proxy: Proxy
) -> None:
    proxy.lose("POST /jobs", times=2)
    async with client:
        job = await client.create("task")
        assert [found.id async for found in client.iter_jobs()] == [job.id]
    assert [exchange.status for exchange in proxy.record.of("POST /jobs")] == [None, None, 200]


async def test_a_claim_whose_answer_was_lost_gives_the_same_lease(
    client: OrchestratorClient, proxy: Proxy
) -> None:
    async with client:
        first = await client.create("task")
        await client.create("task")
        proxy.lose("POST /claim")
        claimed = await client.claim("w")
        assert claimed is not None
        assert (claimed.id, claimed.attempt) == (first.id, 1)
        running = [job.id async for job in client.iter_jobs(status="running")]
        assert running == [first.id]


async def test_reports_and_heartbeats_whose_answers_were_lost_have_one_effect(
    client: OrchestratorClient, proxy: Proxy
) -> None:
    async with client:
        await client.create("task")
        job = await client.claim("w")
        assert job is not None
        proxy.lose("POST /heartbeat")
        await client.heartbeat(job, checkpoint=1)
        proxy.lose("PATCH /status")
        failed = await client.report_failed(job, {"type": "Boom"})
        assert (failed.retry_count, failed.checkpoint) == (1, 1)
        actions = [event.action for event in await client.events(job.id)]
        assert actions == ["create", "claim", "fail"]


async def test_a_call_that_gets_no_answer_in_time_is_given_up() -> None:
    with socket.create_server((LOCAL, 0)) as silent:
        url = f"http://{LOCAL}:{silent.getsockname()[1]}"
        once = Patience(total_seconds=0)
        async with OrchestratorClient(url, timeout_seconds=0.1, patience=once) as client:
            with pytest.raises(errors.CallTimedOut):
                await client.create("task")


async def test_a_worker_repeats_its_claim_and_its_report_until_they_are_answered(
    app: Worker, straight: OrchestratorClient, proxy: Proxy
) -> None:
    runs: list[int] = []

    @app.task("task")
    async def task(job: Context) -> str:
        runs.append(job.id)
        return "done"

    async with straight:
        job = await straight.create("task")
        proxy.lose("POST /claim")
        proxy.lose("PATCH /status", times=2)
        async with working(app):
            await proxy.record.until("PATCH /status", times=3)
            claims = await proxy.record.until("POST /claim", times=3)
        assert claims[0].body["request_id"] == claims[1].body["request_id"]
        assert claims[1].body["request_id"] != claims[2].body["request_id"]
        assert runs == [job.id]
        done = await straight.get(job.id)
        assert (done.status, done.attempt) == (Status.SUCCEEDED, 1)
        actions = [event.action for event in await straight.events(job.id)]
        assert actions == ["create", "claim", "succeed"]


async def test_a_worker_keeps_its_result_while_the_server_is_away(
    app: Worker, straight: OrchestratorClient, proxy: Proxy
) -> None:
    started = asyncio.Event()
    gone = asyncio.Event()
    finished = asyncio.Event()

    @app.task("task")
    async def task() -> str:
        started.set()
        await gone.wait()
        finished.set()
        return "kept"

    async with straight:
        job = await straight.create("task")
        async with working(app):
            await asyncio.wait_for(started.wait(), 10)
            await proxy.go_away()
            gone.set()
            await asyncio.wait_for(finished.wait(), 10)
            await proxy.come()
            await proxy.record.until("PATCH /status", status=200)
            after = await straight.create("task")
            await proxy.record.until("PATCH /status", times=2, status=200)
        assert (await straight.get(job.id)).result == "kept"
        assert (await straight.get(after.id)).result == "kept"


async def test_a_stranger_on_the_servers_port_costs_no_finished_result(
    app: Worker, straight: OrchestratorClient, proxy: Proxy
) -> None:
    started = asyncio.Event()
    gone = asyncio.Event()

    @app.task("task")
    async def task() -> str:
        started.set()
        await gone.wait()
        return "kept"

    async with straight:
        job = await straight.create("task")
        async with working(app):
            await asyncio.wait_for(started.wait(), 10)
            async with proxy.replaced_by(NOT_FOUND):
                gone.set()
                await proxy.record.until("PATCH /status", status=404)
                beats = len(proxy.record.of("POST /heartbeat"))
                await proxy.record.until("PATCH /status", times=3, status=404)
                await proxy.record.until("POST /heartbeat", times=beats + 1)
            await proxy.record.until("PATCH /status", status=200)
        done = await straight.get(job.id)
        assert (done.result, done.attempt, done.retry_count) == ("kept", 1, 0)
        actions = [event.action for event in await straight.events(job.id)]
        assert actions == ["create", "claim", "succeed"]


async def test_a_stranger_on_the_servers_port_costs_no_lease_whose_answer_was_lost(
    app: Worker, straight: OrchestratorClient, proxy: Proxy
) -> None:
    app.task("task")(_nothing)
    proxy.lose("POST /claim")
    async with straight:
        job = await straight.create("task")
        async with working(app):
            await proxy.record.until("POST /claim")
            async with proxy.replaced_by(NOT_FOUND):
                await proxy.record.until("POST /claim", status=404)
            await proxy.record.until("PATCH /status", status=200)
        actions = [event.action for event in await straight.events(job.id)]
        assert actions == ["create", "claim", "succeed"]


async def test_a_worker_that_starts_before_its_server_waits_for_it(
    app: Worker,
    straight: OrchestratorClient,
    proxy: Proxy,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And says once that it waits, and when that is over."""
    caplog.set_level(logging.INFO)
    said = asyncio.Event()
    log = logging.getLogger("compute_orchestrator.worker")

    def warn(words: str, *rest: object) -> None:
        log.log(logging.WARNING, words, *rest)
        said.set()

    monkeypatch.setattr(log, "warning", warn)
    app.task("task")(_nothing)
    await proxy.go_away()
    async with straight, working(app):
        job = await straight.create("task")
        await asyncio.wait_for(said.wait(), 10)
        await proxy.come()
        await proxy.record.until("PATCH /status")
        assert (await straight.get(job.id)).status == Status.SUCCEEDED
    assert caplog.text.count("the server is away, and is asked again until it is back: ") == 1
    assert caplog.text.count("the server is back") == 1


async def test_a_worker_whose_server_is_away_stops_at_once_when_it_is_told() -> None:
    tried = asyncio.Event()

    def refuse(request: httpx.Request) -> httpx.Response:
        tried.set()
        raise httpx.ConnectError("refused", request=request)

    app = Worker("http://127.0.0.1:1", transport=answering(refuse))
    app.task("task")(_nothing)
    async with asyncio.timeout(2), working(app):
        await tried.wait()


async def test_a_lease_whose_answer_was_lost_is_handed_back_when_the_worker_stops(
    app: Worker, straight: OrchestratorClient, proxy: Proxy
) -> None:
    app.task("task")(_nothing)
    proxy.lose("POST /claim")
    async with straight:
        job = await straight.create("task")
        async with working(app):
            await proxy.record.until("POST /claim")
        (report,) = proxy.record.of("PATCH /status")
        assert report.body["status"] == "queued"
        assert (await straight.get(job.id)).release_count == 1


async def test_a_busy_thread_keeps_its_lease_for_three_leases(
    straight: OrchestratorClient, proxy: Proxy
) -> None:
    app = Worker(proxy.url, lease_seconds=LEASE_SECONDS)
    enough = threading.Event()

    @app.task("task")
    def task() -> int:
        rounds = 0
        while not enough.is_set():
            rounds += sum(range(1_000)) > 0
        return rounds

    async with straight:
        job = await straight.create("task")
        proxy.lose("POST /heartbeat")
        async with working(app):
            beats = await proxy.record.until("POST /heartbeat", status=200)
            held = await straight.get(job.id)
            while held.last_heartbeat_at is None or _since_claim(held) < 3 * LEASE_SECONDS:
                beats = await proxy.record.until(
                    "POST /heartbeat", times=len(beats) + 1, status=200
                )
                held = await straight.get(job.id)
            enough.set()
        done = await straight.get(job.id)
        assert (done.status, done.attempt, done.retry_count) == (Status.SUCCEEDED, 1, 0)
        actions = [event.action for event in await straight.events(job.id)]
        assert actions == ["create", "claim", "succeed"]


def _since_claim(job: Job) -> float:
    assert job.last_heartbeat_at is not None
    assert job.locked_at is not None
    return (job.last_heartbeat_at - job.locked_at).total_seconds()


async def _nothing() -> None:
    """A task."""
