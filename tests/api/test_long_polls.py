"""`wait_seconds` on the claim and on a job, over HTTP: section 3, and a client that goes away."""

import asyncio

import pytest

from tests.api.calls import Api, ok, places, refused
from tests.api.listening import Listening
from tests.conftest import World
from tests.services.fakes import called


async def asleep(world: World, queue: str, number: int) -> None:
    """Until so many wait at this queue."""
    while world.wakeups.awaited_queues().get(queue, 0) != number:
        await called()


async def test_a_claim_waits_for_a_job(world: World, api: Api) -> None:
    waiting = asyncio.create_task(api.try_claim(wait_seconds=60))
    await asleep(world, "default", 1)
    job = await api.create()
    assert ok(await waiting)["id"] == job["id"]


async def test_a_claim_that_waited_in_vain_is_204(api: Api) -> None:
    assert await api.nothing_to_claim(wait_seconds=0.01)
    assert await api.nothing_to_claim(wait_seconds=0)


async def test_a_repeated_claim_gets_its_lease_at_once(api: Api) -> None:
    await api.create()
    lease = await api.claim(request_id="r", wait_seconds=60)
    assert (await api.claim(request_id="r", wait_seconds=60))["lease_token"] == lease["lease_token"]


async def test_a_job_is_shown_as_soon_as_it_is_final(world: World, api: Api) -> None:
    lease = await api.started()
    path = f"/jobs/{lease['id']}"
    waiting = asyncio.create_task(world.http.get(path, params={"wait_seconds": "59.5"}))
    while not world.wakeups.awaited_jobs():
        await called()
    await api.report(lease, "succeeded", result=42)
    assert ok(await waiting)["result"] == 42
    assert ok(await world.http.get(path, params={"wait_seconds": "60"}))["status"] == "succeeded"


async def test_when_the_time_is_over_the_job_is_shown_as_it_stands(world: World, api: Api) -> None:
    job = await api.create()
    answer = await world.http.get(f"/jobs/{job['id']}", params={"wait_seconds": "0.01"})
    assert ok(answer)["status"] == "queued"


@pytest.mark.parametrize("seconds", [-1, 60.001, "5", True])
async def test_a_claim_waits_for_a_minute_at_most(api: Api, seconds: object) -> None:
    assert places(refused(await api.try_claim(wait_seconds=seconds))) == {"body.wait_seconds"}


@pytest.mark.parametrize("seconds", ["-1", "60.001", "1e1", "", "nan"])
async def test_a_read_waits_for_a_minute_at_most(world: World, api: Api, seconds: str) -> None:
    job = await api.create()
    answer = await world.http.get(f"/jobs/{job['id']}", params={"wait_seconds": seconds})
    assert places(refused(answer)) == {"query.wait_seconds"}


async def test_a_client_that_goes_away_frees_its_place_and_takes_no_job(
    server: Listening, api_of_server: Api
) -> None:
    connection = await server.connect()
    body = b'{"worker_id": "gone", "wait_seconds": 60}'
    await connection.send(
        b"POST /jobs/claim HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n" % len(body),
        body,
    )
    await asleep(server.world, "default", 1)
    await connection.close()
    await asleep(server.world, "default", 0)
    job = await api_of_server.create()
    assert (await api_of_server.get(job))["status"] == "queued"


@pytest.fixture
def api_of_server(server: Listening) -> Api:
    return Api(server.world.http)
