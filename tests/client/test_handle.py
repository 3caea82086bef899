"""A handle on a job: waiting for its end, whatever happens to the server meanwhile."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import httpx
import pytest

from compute_orchestrator.client import (
    JobHandle,
    NewJob,
    OrchestratorClient,
    Patience,
    calls,
    errors,
)
from compute_orchestrator.client.models import ClaimedJob, Job, Status
from tests.client.wires import Wire, answering
from tests.conftest import URL, World
from tests.promises.servers import running_server
from tests.services.fakes import called

JOB: dict[str, Any] = {"id": 1, "queue": "q", "name": "n", "status": "queued"}
QUICK = Patience(total_seconds=0.5, first_wait_seconds=0.01, jitter_seconds=0)


async def claim(client: OrchestratorClient) -> ClaimedJob:
    job = await client.claim("w")
    assert job is not None
    return job


async def until(done: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not done():
            await called()


async def test_the_result_comes_as_soon_as_the_job_is_done(
    client: OrchestratorClient, world: World, wire: Wire
) -> None:
    handle = await client.submit("resize", payload={"width": 3}, max_retries=1)
    assert (handle.job.payload, handle.job.max_retries) == ({"width": 3}, 1)
    waiting = asyncio.create_task(handle.result(timeout_seconds=20))
    await until(world.wakeups.awaited_jobs)
    await client.report_succeeded(await claim(client), {"size": 5})
    assert await waiting == {"size": 5}
    assert handle.job.status == Status.SUCCEEDED
    assert len(wire.record.of(f"GET /{handle.id}")) == 1
    assert await handle.result() == {"size": 5}
    assert [event.action for event in await handle.events()] == ["create", "claim", "succeed"]


async def test_a_new_job_is_submitted_as_it_is(client: OrchestratorClient) -> None:
    new = NewJob("resize", {"width": 3}, queue="images")
    handle = await client.submit(new, idempotency_key="mine")
    assert (handle.job.name, handle.job.queue) == ("resize", "images")
    assert (await client.submit(new, idempotency_key="mine")).id == handle.id
    with pytest.raises(TypeError, match="already"):
        await cast("Any", client.submit)(new, {"width": 4})


async def test_an_end_without_success_is_raised(client: OrchestratorClient) -> None:
    failed, exhausted, cancelled = [
        await client.submit("resize", max_retries=retries) for retries in (0, 1, 1)
    ]
    await client.report_failed(await claim(client), {"type": "Boom", "message": "too hot"})
    for _ in range(2):
        await client.report_failed(await claim(client), retry_in_seconds=0)
    await cancelled.cancel()
    with pytest.raises(errors.JobFailed, match=rf"job {failed.id} .*failed: Boom: too hot") as one:
        await failed.result(timeout_seconds=20)
    assert one.value.job.error == {"type": "Boom", "message": "too hot"}
    with pytest.raises(errors.JobFailed, match=r"is exhausted$"):
        await exhausted.result(timeout_seconds=20)
    with pytest.raises(errors.JobCancelled):
        await cancelled.result(timeout_seconds=20)
    assert (await failed.wait()).status == Status.FAILED


async def test_a_result_that_is_not_there_in_time_may_be_waited_for_again(
    client: OrchestratorClient,
) -> None:
    handle = await client.submit("resize")
    loop = asyncio.get_running_loop()
    for seconds in (0, 0.3):
        start = loop.time()
        with pytest.raises(TimeoutError, match=rf"not final within {seconds} s: queued") as late:
            await handle.result(timeout_seconds=seconds)
        assert isinstance(late.value, errors.ResultTimeout)
        assert late.value.job.id == handle.id
        assert seconds <= loop.time() - start < seconds + 1
    await client.report_succeeded(await claim(client), 5)
    assert await handle.result(timeout_seconds=0) == 5


async def test_a_timeout_holds_against_a_server_that_never_answers() -> None:
    forever = asyncio.Event()

    async def hang(_: httpx.Request) -> httpx.Response:
        await forever.wait()
        raise AssertionError

    client = OrchestratorClient(URL, transport=httpx.MockTransport(hang))
    handle = JobHandle(client, await answered(JOB).get(1))
    loop = asyncio.get_running_loop()
    start = loop.time()
    with pytest.raises(errors.ResultTimeout):
        await handle.result(timeout_seconds=0.1)
    assert loop.time() - start < 3


def answered(*jobs: dict[str, Any], patience: Patience = QUICK) -> OrchestratorClient:
    """A client whose server gives these answers in turn, the last one for ever."""
    left = list(jobs)

    def answer(_: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json=left.pop(0) if len(left) > 1 else left[0])

    return OrchestratorClient(URL, patience=patience, transport=answering(answer))


async def test_answers_before_their_time_make_no_busy_loop(
    client: OrchestratorClient, world: World, wire: Wire
) -> None:
    """A server that is told to stop answers all who wait, and from then on at once."""
    handle = await client.submit("resize")
    waiting = asyncio.create_task(handle.wait(timeout_seconds=1.5))
    await until(world.wakeups.awaited_jobs)
    world.wakeups.close()
    with pytest.raises(errors.ResultTimeout):
        await waiting
    assert 3 <= len(wire.record.of("GET /1")) <= 7  # one that waited, and after 0.1, 0.2, 0.4 ... s


async def test_a_server_may_be_away_for_the_timeout_or_else_for_the_patience() -> None:
    tries: list[str] = []
    done = {**JOB, "status": "succeeded", "result": 7}

    def answer(request: httpx.Request) -> httpx.Response:
        tries.append(request.url.path)
        if len(tries) == 1:
            return httpx.Response(503, json={"code": "shutting-down"}, headers={"Retry-After": "9"})
        if len(tries) < 4:
            raise httpx.ConnectError("refused", request=request)
        return httpx.Response(200, json=done)

    client = OrchestratorClient(URL, patience=QUICK, transport=answering(answer))
    handle = JobHandle(client, await answered(JOB).get(1))
    loop = asyncio.get_running_loop()
    start = loop.time()
    with pytest.raises(errors.ShuttingDown):
        await handle.result()
    with pytest.raises(errors.ResultTimeout) as late:
        await handle.result(timeout_seconds=0)
    assert isinstance(late.value.__cause__, errors.ConnectFailed)
    assert await handle.result(timeout_seconds=20) == 7
    assert loop.time() - start < 3


async def test_what_would_never_do_better_is_raised_at_once() -> None:
    client = OrchestratorClient(
        URL, transport=answering(lambda _: httpx.Response(404, json={"code": "job-not-found"}))
    )
    handle = JobHandle(client, await answered(JOB).get(1))
    with pytest.raises(errors.JobNotFound):
        await handle.result(timeout_seconds=20)


async def test_those_who_wait_keep_no_other_call_from_its_place(
    world: World, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many wait: beyond the long polls that there may be they look now and then."""
    monkeypatch.setattr(calls, "MOST_LONG_POLLS", 2)
    async with OrchestratorClient(URL, max_connections=1, transport=wire) as client:
        handles = [await client.submit("resize") for _ in range(5)]
        results = asyncio.gather(*(handle.result(timeout_seconds=20) for handle in handles))
        await until(lambda: len(world.wakeups.awaited_jobs()) == 2)
        await until(lambda: len(wire.record.of("GET /5")) > 1)
        assert len(world.wakeups.awaited_jobs()) == 2
        for _ in handles:
            job = await claim(client)
            await client.report_succeeded(job, job.id)
        assert await results == [handle.id for handle in handles]


async def test_who_gives_up_leaves_its_place(client: OrchestratorClient, world: World) -> None:
    handle = await client.submit("resize")
    waiting = asyncio.create_task(handle.result())
    await until(world.wakeups.awaited_jobs)
    waiting.cancel()
    await asyncio.wait({waiting})
    assert waiting.cancelled()
    with client._caller.long_poll(1) as waits:  # pyright: ignore[reportPrivateUsage] - seen nowhere else
        assert (waits, client._caller._long_polls) == (1, 1)  # pyright: ignore[reportPrivateUsage]


@pytest.mark.process
async def test_a_server_that_starts_again_is_waited_for(tmp_path: Path) -> None:
    async with (
        running_server(tmp_path) as server,
        OrchestratorClient(server.url, patience=QUICK) as client,
    ):
        handle = await client.submit("resize")
        waiting = asyncio.create_task(handle.result(timeout_seconds=30))
        await until(lambda: client._caller._long_polls)  # pyright: ignore[reportPrivateUsage]
        await server.kill()
        await server.start()
        async with OrchestratorClient(server.url) as other:
            await other.report_succeeded(await claim(other), 7)
        assert await waiting == 7


def test_a_handle_is_shown_without_its_payload() -> None:
    job = Job.model_validate({**JOB, "payload": "secret"})
    assert repr(JobHandle(answered(JOB), job)) == "<JobHandle 1 n: queued>"
