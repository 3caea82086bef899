"""Many jobs in one call."""

import asyncio
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from compute_orchestrator.client import NewJob, OrchestratorClient, Patience, errors
from tests.client.wires import Proxy, Wire

QUICK = Patience(total_seconds=5, first_wait_seconds=0.01, jitter_seconds=0)


async def test_the_jobs_come_back_in_order_with_what_they_were_given(
    client: OrchestratorClient,
) -> None:
    later = datetime.now(UTC) + timedelta(days=1)
    made = await client.create_many(
        [
            NewJob("resize", {"width": 3}, queue="images", tags=["a"], max_retries=5),
            NewJob("count"),
            NewJob("resize", run_at=later, retry={"base_seconds": 9}),
        ]
    )
    assert [(job.name, job.queue, job.payload) for job in made] == [
        ("resize", "images", {"width": 3}),
        ("count", "default", None),
        ("resize", "default", None),
    ]
    assert (made[0].tags, made[0].max_retries, made[2].run_at) == (["a"], 5, later)
    assert [job.id async for job in client.iter_jobs(order="oldest")] == [job.id for job in made]


async def test_one_bad_job_makes_none(client: OrchestratorClient) -> None:
    with pytest.raises(errors.ValidationFailed) as refused:
        await client.create_many([NewJob("good"), NewJob("bad", queue="a/b")])
    assert "jobs.1.queue" in refused.value.errors[0]["where"]
    assert [job async for job in client.iter_jobs()] == []


async def test_too_many_jobs_and_none_are_not_asked_for(
    client: OrchestratorClient, wire: Wire
) -> None:
    with pytest.raises(ValueError, match="at most 1000 jobs in one call: 1001"):
        await client.create_many([NewJob("task")] * 1_001)
    assert await client.create_many([]) == []
    with pytest.raises(ValueError, match="time zone"):
        await client.create_many([NewJob("task", run_at=datetime(2001, 1, 1))])  # noqa: DTZ001 - that is the point
    assert wire.record.of("POST /bulk") == []


async def test_a_key_of_ones_own_is_for_the_whole_call(client: OrchestratorClient) -> None:
    jobs = [NewJob("task", n) for n in range(3)]
    first = await client.create_many(jobs, idempotency_key="import/7")
    again = await client.create_many(jobs, idempotency_key="import/7")
    assert [job.id for job in again] == [job.id for job in first]
    with pytest.raises(errors.IdempotencyMismatch):
        await client.create_many(jobs[:2], idempotency_key="import/7")


async def test_a_lost_answer_makes_no_second_jobs(proxy: Proxy) -> None:
    proxy.lose("POST /bulk", times=2)
    async with OrchestratorClient(proxy.url, patience=QUICK) as client:
        made = await client.create_many([NewJob("task", n) for n in range(3)])
        found = [job.id async for job in client.iter_jobs(order="oldest")]
        assert found == [job.id for job in made]
    assert [exchange.status for exchange in proxy.record.of("POST /bulk")] == [None, None, 200]


async def test_a_server_that_is_busy_is_asked_again_when_it_says(
    client: OrchestratorClient, wire: Wire
) -> None:
    busy = httpx.Response(503, json={"code": "overloaded"}, headers={"Retry-After": "1"})
    wire.instead["POST /bulk"] = [busy]
    loop = asyncio.get_running_loop()
    start = loop.time()
    made = await client.create_many([NewJob("task"), NewJob("task")])
    assert loop.time() - start >= 1
    assert len(made) == 2
    first, second = wire.record.of("POST /bulk")
    assert first.headers["idempotency-key"] == second.headers["idempotency-key"]
