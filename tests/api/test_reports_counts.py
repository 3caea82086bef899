"""What a report does to the counts and to the time of the next run (section 5)."""

from typing import Any

import pytest

from tests.api.calls import Api, Json
from tests.api.test_claims import seconds, vanish
from tests.conftest import World

NO_WAIT: Json = {"base_seconds": 0, "factor": 1, "max_seconds": 0, "jitter": 0}


def wait(job: Json) -> float:
    """Seconds from the last change to the next run."""
    return seconds(job["run_at"]) - seconds(job["updated_at"])


def counts(job: Json) -> tuple[str, int, int, int]:
    return job["status"], job["attempt"], job["retry_count"], job["release_count"]


async def test_with_3_retries_a_job_can_end_badly_four_times(api: Api) -> None:
    await api.create(retry=NO_WAIT)
    seen: list[tuple[str, int, int, int]] = []
    for _ in range(4):
        job = await api.report(await api.claim(), "failed")
        seen.append(counts(job))
    assert seen == [
        ("queued", 1, 1, 0),
        ("queued", 2, 2, 0),
        ("queued", 3, 3, 0),
        ("exhausted", 4, 3, 0),
    ]
    assert await api.nothing_to_claim()


async def test_a_lost_lease_spends_a_retry_in_the_same_way(api: Api, world: World) -> None:
    job = await api.create(retry=NO_WAIT, max_retries=2, lease_seconds=10)
    for expected in (("queued", 1, 1, 0), ("queued", 2, 2, 0), ("exhausted", 3, 2, 0)):
        lease = await api.claim()
        await world.pass_time(14)
        job = await api.get(lease)
        assert counts(job) == expected
    assert job["finished_at"] is not None
    assert job["lease_expires_at"] is None


async def test_without_retries_a_failure_is_failed_and_a_lost_lease_exhausted(
    api: Api, world: World
) -> None:
    lease = await api.started(max_retries=0)
    assert counts(await api.report(lease, "failed")) == ("failed", 1, 0, 0)
    lease = await api.started(max_retries=0, lease_seconds=10)
    await world.pass_time(14)
    assert counts(await api.get(lease)) == ("exhausted", 1, 0, 0)


async def test_what_is_not_retryable_is_failed(api: Api) -> None:
    lease = await api.started(max_retries=5)
    job = await api.report(lease, "failed", retryable=False, retry_in_seconds=5)
    assert counts(job) == ("failed", 1, 0, 0)
    lease = await api.started(max_retries=5)
    assert counts(await api.report(lease, "failed", retryable=True))[0] == "queued"


@pytest.mark.parametrize(
    ("policy", "waits"),
    [
        ({}, [1, 2, 4, 8, 16]),
        ({"base_seconds": 3, "factor": 1}, [3, 3, 3]),
        ({"base_seconds": 2, "factor": 10, "max_seconds": 50}, [2, 20, 50, 50]),
        ({"base_seconds": 100, "max_seconds": 10}, [10, 10]),
        ({"base_seconds": 8, "factor": 0.5}, [8, 4, 2, 1]),
        ({"base_seconds": 5, "factor": 0}, [5, 0, 0]),
        ({"base_seconds": 0}, [0, 0]),
        ({"max_seconds": 0}, [0, 0]),
    ],
)
async def test_the_backoff_without_jitter(api: Api, world: World, policy: Json, waits: Any) -> None:
    await api.create(max_retries=len(waits), retry={**policy, "jitter": 0})
    for expected in waits:
        job = await api.report(await api.claim(), "failed")
        assert wait(job) == pytest.approx(expected, abs=1e-5)
        if expected > 0:
            assert await api.nothing_to_claim()
            await world.pass_time(expected)


@pytest.mark.parametrize("jitter", [0.2, 1])
async def test_jitter_only_adds_and_differs(api: Api, jitter: float) -> None:
    waits: set[float] = set()
    for _ in range(25):
        lease = await api.started(retry={"base_seconds": 10, "jitter": jitter})
        waits.add(wait(await api.report(lease, "failed")))
    assert all(10 <= one < 10 * (1 + jitter) for one in waits)
    assert len(waits) > 10
    assert max(waits) - min(waits) > 2 * jitter


async def test_jitter_comes_on_top_of_the_longest_wait(api: Api) -> None:
    for _ in range(25):
        lease = await api.started(retry={"base_seconds": 500, "max_seconds": 10, "jitter": 1})
        assert 10 <= wait(await api.report(lease, "failed")) < 20


@pytest.mark.parametrize("given", [0, 0.25, 1000])
async def test_retry_in_seconds_is_taken_as_given(api: Api, given: float) -> None:
    lease = await api.started(retry={"base_seconds": 50, "max_seconds": 60, "jitter": 1})
    job = await api.report(lease, "failed", retry_in_seconds=given)
    assert wait(job) == pytest.approx(given)
    assert job["retry_count"] == 1
    assert await api.nothing_to_claim() == (given > 0)


async def test_the_backoff_of_a_lost_lease(api: Api, world: World) -> None:
    lease = await api.started(lease_seconds=10, retry={"base_seconds": 30, "jitter": 0.5})
    await world.pass_time(14)
    assert 30 <= wait(await api.get(lease)) < 45


@pytest.mark.parametrize(("base", "expected"), [(1, 0.5), (0, 0)])
async def test_the_500th_wait_of_a_steep_policy_is_no_more_than_its_maximum(
    api: Api, world: World, base: float, expected: float
) -> None:
    policy = {"base_seconds": base, "factor": 1000, "max_seconds": 0.5, "jitter": 0}
    lease = await api.started(max_retries=1000, retry=policy)
    world.database.rows("UPDATE jobs SET retry_count = 499")
    job = await api.report(lease, "failed")
    assert job["retry_count"] == 500
    assert wait(job) == expected


# Releases


async def test_a_release_keeps_its_place_and_spends_nothing(api: Api, world: World) -> None:
    first = await api.create()
    world.clock.move(1)
    await api.create()
    for n in (1, 2):
        lease = await api.claim()
        assert lease["id"] == first["id"]
        world.clock.move(1)
        job = await api.report(lease, "queued")
        assert counts(job) == ("queued", n, 0, n)
        assert job["run_at"] == first["run_at"]
        assert job["locked_by"] is None


async def test_from_the_third_release_on_the_backoff_of_that_count_is_waited(
    api: Api, world: World
) -> None:
    policy = {"base_seconds": 1, "factor": 3, "max_seconds": 100, "jitter": 0}
    lease = await api.started(retry=policy, run_at="2020-01-01T00:00:00Z")
    for n, expected in ((1, None), (2, None), (3, 9), (4, 27), (5, 81), (6, 100)):
        job = await api.report(lease, "queued")
        assert counts(job) == ("queued", n, 0, n)
        if expected is None:
            assert job["run_at"] == "2020-01-01T00:00:00.000000Z"
        else:
            assert wait(job) == expected
            assert await api.nothing_to_claim()
            await world.pass_time(expected)
        lease = await api.claim()


@pytest.mark.parametrize("given", [0, 0.5, 1000])
async def test_run_in_seconds_is_taken_as_given(api: Api, world: World, given: float) -> None:
    policy = {"base_seconds": 50, "max_seconds": 60, "jitter": 1}
    lease = await api.started(retry=policy, run_at="2020-01-01T00:00:00Z")
    for n in range(1, 5):
        job = await api.report(lease, "queued", run_in_seconds=given)
        assert counts(job) == ("queued", n, 0, n)  # it counts as a release all the same
        assert wait(job) == pytest.approx(given)
        if given > 0:
            assert await api.nothing_to_claim()
            world.clock.move(given)
            await world.promoter.promote_once()
        lease = await api.claim()


async def test_a_failure_a_lost_lease_and_a_retry_begin_the_count_anew(
    api: Api, world: World
) -> None:
    async def released_twice() -> Json:
        for n in (1, 2):
            job = await api.report(await api.claim(), "queued")
            assert job["release_count"] == n
        return await api.claim()

    await api.create(retry=NO_WAIT, lease_seconds=10)
    job = await api.report(await released_twice(), "failed")
    assert job["release_count"] == 0

    lease = await released_twice()
    await world.pass_time(14)
    assert (await api.get(lease))["release_count"] == 0

    lease = await released_twice()
    await api.cancel(lease, force=True)
    assert (await api.retry(lease))["release_count"] == 0


async def test_the_servers_release_is_not_counted(api: Api, world: World) -> None:
    job = await api.create(run_at="2020-01-01T00:00:00Z")
    for _ in range(2):
        await api.report(await api.claim(), "queued")
    for _ in range(4):
        await vanish(world, {"worker_id": "gone"})
    job = await api.get(job)
    assert counts(job) == ("queued", 6, 0, 2)
    assert job["run_at"] == "2020-01-01T00:00:00.000000Z"


async def test_attempt_counts_every_claim(api: Api, world: World) -> None:
    job = await api.create(retry=NO_WAIT, lease_seconds=10, max_retries=10)
    await api.report(await api.claim(), "queued")
    await api.report(await api.claim(), "failed")
    await api.claim()
    await world.pass_time(14)
    lease = await api.claim()
    await api.cancel(lease, force=True)
    await api.retry(lease)
    assert (await api.claim())["attempt"] == 5
    assert (await api.get(job))["attempt"] == 5
