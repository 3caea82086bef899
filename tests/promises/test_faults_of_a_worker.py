"""Python workers among faults: lost and doubled answers, a server that is killed in mid-report, and
a network that stands still. Each job is run once, and ends once, unless its lease was over.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from compute_orchestrator.client import Context, NewJob, OrchestratorClient, Worker
from compute_orchestrator.client.models import Status
from tests.promises.servers import ServerProcess, real_seconds, running_server, until
from tests.promises.stalling import network_to
from tests.promises.transports import Doubling, Interrupting, Losing

pytestmark = [pytest.mark.process, pytest.mark.timeout(120)]

JOBS = 40
LONG_LEASE_SECONDS = 30


class Team:
    """A worker in this process, and what it ran."""

    def __init__(self, url: str, queue: str, transport: httpx.AsyncBaseTransport | None) -> None:
        self.runs: list[int] = []
        self.queue = queue
        self.app = Worker(
            url,
            queues=[queue],
            concurrency=8,
            lease_seconds=LONG_LEASE_SECONDS,
            transport=transport,
        )
        self.app.task("work")(self.work)

    async def work(self, job: Context, number: int) -> int:
        self.runs.append(job.id)
        await real_seconds(number % 3 * 0.02)
        return number


@asynccontextmanager
async def working(app: Worker) -> AsyncGenerator[None]:
    serving = asyncio.create_task(app.serve())
    try:
        yield
    finally:
        app.stop()
        async with asyncio.timeout(30):
            await serving


async def create(client: OrchestratorClient, team: Team) -> list[int]:
    new = [NewJob("work", {"number": number}, queue=team.queue) for number in range(JOBS)]
    return [job.id for job in await client.create_many(new)]


async def until_over(client: OrchestratorClient, team: Team) -> None:
    async def over() -> bool:
        return len((await client.list_jobs(queue=team.queue, status="succeeded")).jobs) == JOBS

    await until(over, 60)


async def assert_each_was_done_once(
    client: OrchestratorClient, team: Team, made: list[int]
) -> None:
    assert sorted(team.runs) == sorted(made)
    for number, job_id in enumerate(made):
        job = await client.get(job_id)
        assert (job.status, job.result, job.attempt) == (Status.SUCCEEDED, number, 1)
        actions = [event.action for event in await client.events(job_id)]
        assert actions == ["create", "claim", "succeed"]


async def test_answers_that_are_lost_on_the_way_cost_nothing(
    server: ServerProcess, queue: str
) -> None:
    transport = Losing()
    team = Team(server.url, queue, transport)
    async with OrchestratorClient(server.url) as client:
        made = await create(client, team)
        async with working(team.app):
            await until_over(client, team)
        await assert_each_was_done_once(client, team, made)
    assert any("claim" in body for body in transport.lost)
    assert any("reports" in body for body in transport.lost)


async def test_calls_that_arrive_twice_have_one_effect(server: ServerProcess, queue: str) -> None:
    transport = Doubling()
    team = Team(server.url, queue, transport)
    async with OrchestratorClient(server.url) as client:
        made = await create(client, team)
        async with working(team.app):
            await until_over(client, team)
        await assert_each_was_done_once(client, team, made)
    assert transport.doubled > 3


async def test_a_server_that_is_killed_in_mid_report_loses_no_result(
    tmp_path: Path, store_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "compute_orchestrator.worker")
    async with running_server(tmp_path, database_url=store_url) as server:
        transport = Interrupting(server.kill)
        team = Team(server.url, "q", transport)
        async with OrchestratorClient(server.url) as client:
            made = await create(client, team)
            async with working(team.app):
                await asyncio.wait_for(transport.has_happened.wait(), 30)
                await server.start()
                await until_over(client, team)
            await assert_each_was_done_once(client, team, made)
    assert caplog.text.count("the server is away") == 1
    assert caplog.text.count("the server is back") == 1


@pytest.mark.slow
async def test_ten_seconds_of_stalled_network_cost_only_the_leases_that_end_in_them(
    server: ServerProcess, queue: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "compute_orchestrator.worker")
    started: set[str] = set()
    cancelled: list[int] = []
    stalled = asyncio.Event()
    flowing = asyncio.Event()

    async with network_to(server.port) as network, OrchestratorClient(server.url) as client:
        app = Worker(
            f"http://127.0.0.1:{network.port}",
            queues=[queue],
            concurrency=3,
            timeout_seconds=2,
        )

        async def run(job: Context, end: asyncio.Event) -> int:
            if job.attempt == 1:
                started.add(job.name)
                try:
                    await end.wait()
                except asyncio.CancelledError:
                    cancelled.append(job.id)
                    raise
            return job.attempt

        @app.task("ends-while-it-stalls")
        async def ends(job: Context) -> int:
            return await run(job, stalled)

        @app.task("goes-on")
        async def goes_on(job: Context) -> int:
            return await run(job, flowing)

        @app.task("short-lease")
        async def short(job: Context) -> int:
            return await run(job, asyncio.Event())

        long = LONG_LEASE_SECONDS
        one = await client.create("ends-while-it-stalls", queue=queue, lease_seconds=long)
        two = await client.create("goes-on", queue=queue, lease_seconds=long)
        three = await client.create("short-lease", queue=queue, lease_seconds=2)

        async def all_started() -> bool:
            return len(started) == 3

        async def told() -> bool:
            return bool(cancelled)

        async with working(app):
            await until(all_started)
            network.stall()
            stalled.set()
            await real_seconds(10)
            assert (await client.get(one.id)).status == Status.RUNNING
            network.flow()
            flowing.set()
            for job in (one, two, three):
                await until(lambda job=job: is_final(client, job.id))
            await until(told)
        done = [await client.get(job.id) for job in (one, two, three)]
        assert [job.status for job in done] == [Status.SUCCEEDED] * 3
        assert [job.result for job in done[:2]] == [1, 1]
        assert done[2].result > 1
        assert cancelled == [three.id]
    assert "the server is away" in caplog.text
    assert "the server is back" in caplog.text


async def is_final(client: OrchestratorClient, job_id: int) -> bool:
    return (await client.get(job_id)).is_final
