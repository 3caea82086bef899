"""The proxy before a worker: it passes on what any HTTP client sends, and knows who went away."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path

import httpx
import pytest

from compute_orchestrator.conformance.proxy import Answer, Forward, Proxy, busy
from compute_orchestrator.conformance.traffic import Exchange, Kind, Traffic
from tests.promises.calls import claim, create
from tests.promises.servers import ENOUGH_SECONDS, http_client, running_server

pytestmark = pytest.mark.process

POLL = {"worker_id": "w", "request_id": "r", "wait_seconds": 30}


@pytest.fixture
async def proxy(tmp_path: Path) -> AsyncGenerator[Proxy]:
    async with (
        running_server(tmp_path) as server,
        Proxy(server.url, Traffic()) as proxy,
    ):
        yield proxy


@pytest.fixture
async def http(proxy: Proxy) -> AsyncGenerator[httpx.AsyncClient]:
    async with http_client(proxy.url) as http:
        yield http


async def test_requests_of_one_connection_are_recorded_in_order(
    proxy: Proxy, http: httpx.AsyncClient
) -> None:
    async def in_pieces() -> AsyncIterator[bytes]:
        yield b'{"name": '
        yield b'"chunked"}'

    headers = {"Content-Type": "application/json"}
    made = await http.post("/jobs", content=in_pieces(), headers=headers)
    assert (made.status_code, made.json()["name"]) == (201, "chunked")
    lease = await claim(http, request_id="r")
    assert lease is not None
    assert await claim(http) is None
    paths = [exchange.path for exchange in proxy.traffic.exchanges]
    assert paths == ["/jobs", "/jobs/claim", "/jobs/claim"]
    brought = proxy.traffic.claim_of(lease["id"])
    assert brought is not None
    assert brought.request_id == "r"


async def test_a_worker_that_goes_away_gets_no_job(proxy: Proxy, http: httpx.AsyncClient) -> None:
    """Its long poll ends at the server too, or a dead worker would be given the next job."""
    waiting = asyncio.create_task(http.post("/jobs/claim", json=POLL))
    await proxy.traffic.until(lambda: proxy.traffic.calls(Kind.CLAIM), ENOUGH_SECONDS)
    waiting.cancel()
    await asyncio.wait({waiting})
    assert await claim(http, "another") is None  # by now the server has heard of it
    await create(http)
    assert await claim(http, "another") is not None


async def test_a_check_may_lose_an_answer_or_give_its_own(
    proxy: Proxy, http: httpx.AsyncClient
) -> None:
    async def lose(_: Exchange, forward: Forward) -> Answer | None:
        await forward()
        return None

    async def refuse(_: Exchange, __: Forward) -> Answer | None:
        return busy(3)

    proxy.treatment = lose
    with pytest.raises(httpx.RemoteProtocolError):
        await create(http)
    proxy.treatment = refuse
    refused = await http.post("/jobs", json={"name": "not made"})
    assert (refused.status_code, refused.headers["Retry-After"]) == (503, "3")
    lost, told = proxy.traffic.exchanges
    assert (lost.status, lost.answered_at) == (201, None)
    assert told.answered_at is not None
