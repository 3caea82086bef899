"""The client's calls against the real app."""

from datetime import UTC, datetime, timedelta

import pytest

from compute_orchestrator.client import OrchestratorClient, errors
from compute_orchestrator.client.models import Job, Status
from tests.client.wires import Wire
from tests.conftest import World


async def test_a_job_goes_its_way_through_the_client(client: OrchestratorClient) -> None:
    created = await client.create("resize", {"width": 3}, queue="images", tags=["a"], max_retries=1)
    assert (created.status, created.payload, created.tags) == (Status.QUEUED, {"width": 3}, ["a"])
    job = await client.claim("w", queues=["images"], lease_seconds=30)
    assert job is not None
    assert (job.id, job.attempt, job.held_seconds) == (created.id, 1, 30)
    state = await client.heartbeat(job, progress={"done": 1}, checkpoint={"page": 2})
    assert (state.id, state.cancel_requested) == (job.id, False)
    assert (await client.report_failed(job, {"type": "Boom"}, retry_in_seconds=0)).retry_count == 1
    again = await client.claim("w", queues=["images"])
    assert again is not None
    assert again.checkpoint == {"page": 2}
    done = await client.report_succeeded(again, {"size": 5})
    assert (done.status, done.result, done.is_final) == (Status.SUCCEEDED, {"size": 5}, True)
    actions = [event.action for event in await client.events(job.id)]
    assert actions == ["create", "claim", "fail", "claim", "succeed"]


async def test_a_claim_of_an_empty_queue_is_none(client: OrchestratorClient) -> None:
    assert await client.claim("w", queues=["nobody"]) is None


async def test_a_job_can_be_handed_back_and_taken_up_later(
    client: OrchestratorClient, world: World
) -> None:
    await client.create("resize", run_at=datetime.now(UTC) - timedelta(days=9999))
    job = await client.claim("w")
    assert job is not None
    released = await client.report_released(job, run_in_seconds=60)
    assert (released.status, released.release_count) == (Status.QUEUED, 1)
    assert await client.claim("w") is None
    await world.pass_time(61)
    assert await client.claim("w") is not None


async def test_all_pages_of_a_list_and_of_a_trail_are_read(client: OrchestratorClient) -> None:
    made = [(await client.create("resize", tags=["t"])).id for _ in range(5)]
    found = [
        job.id
        async for job in client.iter_jobs(page_size=2, tag="t", order="oldest", status="queued")
    ]
    assert found == made
    assert (await client.list_jobs(limit=2)).next_cursor is not None
    one = await client.list_events(made[0], limit=1)
    assert [event.to_status for event in one.events] == ["queued"]


async def test_filters_of_time_need_a_time_zone(client: OrchestratorClient) -> None:
    await client.create("resize")
    long_ago = datetime(2001, 1, 1, tzinfo=UTC)
    assert len((await client.list_jobs(created_after=long_ago)).jobs) == 1
    assert (await client.list_jobs(created_before=long_ago)).jobs == []
    with pytest.raises(ValueError, match="time zone"):
        await client.list_jobs(created_after=datetime(2001, 1, 1))  # noqa: DTZ001 - that is the point


async def test_an_operator_cancels_retries_and_pauses(client: OrchestratorClient) -> None:
    job = await client.create("resize", queue="a b")
    assert (await client.cancel(job.id)).status == Status.CANCELLED
    assert (await client.retry(job.id)).status == Status.QUEUED
    paused = await client.pause_queue("a b")
    assert (paused.name, paused.paused, paused.queued) == ("a b", True, 1)
    assert await client.claim("w", queues=["a b"]) is None
    assert not (await client.resume_queue("a b")).paused
    assert [queue.name for queue in await client.queues()] == ["a b"]
    claimed = await client.claim("w", queues=["a b"])
    assert claimed is not None
    marked = await client.cancel(job.id)
    assert (marked.status, marked.cancel_requested) == (Status.RUNNING, True)
    assert (await client.report_cancelled(claimed)).status == Status.CANCELLED
    assert (await client.cancel((await client.create("x")).id, force=True)).is_final


async def test_workers_stats_and_the_reaper_are_shown(client: OrchestratorClient) -> None:
    await client.create("resize")
    await client.claim("w")
    assert [worker.worker_id for worker in await client.workers()] == ["w"]
    stats = await client.stats()
    assert (stats.queues["default"].running, stats.totals.created) == (1, 1)
    assert (await client.reap()).requeued == 0


async def test_a_key_of_ones_own_makes_one_job(client: OrchestratorClient) -> None:
    first = await client.create("resize", {"n": 1}, idempotency_key="bill/ü")
    assert (await client.create("resize", {"n": 1}, idempotency_key="bill/ü")).id == first.id
    with pytest.raises(errors.IdempotencyMismatch):
        await client.create("resize", {"n": 2}, idempotency_key="bill/ü")
    with pytest.raises(ValueError, match="white space"):
        await client.create("resize", idempotency_key="bill ")
    with pytest.raises(ValueError, match="1 to 200 bytes"):
        await client.create("resize", idempotency_key="")


async def test_each_create_and_each_claim_has_its_own_key(
    client: OrchestratorClient, wire: Wire
) -> None:
    for _ in range(2):
        await client.create("resize")
        await client.claim("w")
    assert len({e.headers["idempotency-key"] for e in wire.record.of("POST /jobs")}) == 2
    assert len({e.body["request_id"] for e in wire.record.of("POST /claim")}) == 2


async def test_what_the_server_refuses_is_raised_by_its_code(client: OrchestratorClient) -> None:
    with pytest.raises(errors.JobNotFound, match="4711"):
        await client.get(4711)
    with pytest.raises(errors.ValidationFailed) as refused:
        await client.create("x" * 201)
    assert "name" in refused.value.errors[0]["where"]
    with pytest.raises(errors.PayloadTooLarge):
        await client.create("x", "y" * 1_100_000)
    job = await client.create("resize")
    with pytest.raises(errors.InvalidTransition) as stands:
        await client.retry((await _succeeded(client, job.id)).id)
    assert (stands.value.status, stands.value.code) == (409, "invalid-transition")


async def test_a_lost_lease_says_who_holds_the_job(
    client: OrchestratorClient, world: World
) -> None:
    await client.create("resize")
    mine = await client.claim("me", lease_seconds=10)
    assert mine is not None
    assert (await world.pass_time(20)).requeued == 1
    await world.pass_time(5)
    await client.claim("other")
    with pytest.raises(errors.LeaseLost) as lost:
        await client.heartbeat(mine)
    assert lost.value.holder == "other"
    with pytest.raises(errors.LeaseLost):
        await client.report_succeeded(mine)


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "ftp://host", "http://", "http://host:port"])
def test_a_url_that_is_none_is_refused_at_once(url: str) -> None:
    with pytest.raises(ValueError, match="http"):
        OrchestratorClient(url)


async def _succeeded(client: OrchestratorClient, job_id: int) -> Job:
    job = await client.claim("w")
    assert job is not None
    assert job.id == job_id
    return await client.report_succeeded(job)
