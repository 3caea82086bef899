"""Connections are kept and used again, and one that the server gave up is not missed."""

import asyncio
from random import Random

import psutil

from compute_orchestrator.client import OrchestratorClient
from tests.client.wires import LOCAL, Proxy
from tests.services.fakes import called


async def test_calls_in_turn_share_one_connection(proxy: Proxy) -> None:
    async with OrchestratorClient(proxy.url) as client:
        for _ in range(20):
            await client.create("task")
        job = await client.claim("w", wait_seconds=20)
        assert job is not None
        await client.report_succeeded(job)
    assert proxy.accepted == 1


async def test_calls_at_once_share_as_many_connections_as_there_may_be(proxy: Proxy) -> None:
    async with OrchestratorClient(proxy.url, max_connections=3) as client:
        await asyncio.gather(*(client.create("task") for _ in range(30)))
    assert proxy.accepted == 3


async def test_calls_that_are_cancelled_at_any_moment_leave_nothing_behind(
    server_port: int,
) -> None:
    """httpcore's own pool would lose a connection here and there, and hang in the end."""
    random = Random(7)  # noqa: S311 - moments, no secret
    url = f"http://{LOCAL}:{server_port}"

    def connections() -> int:
        ours = psutil.Process().net_connections("tcp")
        return sum(1 for one in ours if one.raddr and one.raddr.port == server_port)

    async with OrchestratorClient(url, max_connections=2) as client:
        job = await client.create("task")
        for _ in range(40):
            calls = [asyncio.create_task(client.get(job.id)) for _ in range(4)]
            calls.append(asyncio.create_task(client.get(job.id, wait_seconds=20)))
            for _ in range(random.randrange(60)):
                await called()
            for call in calls:
                call.cancel()
            await asyncio.wait(calls)
        await asyncio.gather(*(client.get(job.id) for _ in range(4)))
        assert 0 < connections() <= 2
    assert connections() == 0


async def test_a_connection_that_the_server_gave_up_is_not_missed(proxy: Proxy) -> None:
    async with OrchestratorClient(proxy.url) as client:
        made = [(await client.create("task")).id]
        await proxy.hang_up()
        made.append((await client.create("task")).id)
        assert [job.id async for job in client.iter_jobs(order="oldest")] == made
    assert proxy.accepted == 2
