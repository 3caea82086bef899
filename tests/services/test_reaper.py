"""The reaper: one pass takes all that is lost, tells what it did, and prunes in small batches."""

import asyncio
from collections.abc import AsyncGenerator

import pytest

from compute_orchestrator.db.engine import Store
from compute_orchestrator.services.operations import CancelCall
from compute_orchestrator.services.reaper import JITTER, PRUNE_LIMIT, PRUNE_TURNS, REAP_LIMIT, Pass
from tests.builders import report
from tests.clocks import START, ManualClock
from tests.store.house import INTERVAL_SECONDS, House, rows, run

LEASE = 6


@pytest.fixture
async def pruning(store: Store, clock: ManualClock) -> AsyncGenerator[House]:
    """A house that keeps finished jobs for a minute."""
    house = House(store, clock, retention_seconds=60)
    yield house
    await house.close()


async def lose(house: House) -> Pass:
    """Time goes by until every lease has run out under the eyes of the reaper."""
    done = await house.reaper.reap_once()
    for _ in range(LEASE):
        house.clock.move(INTERVAL_SECONDS)
        done += await house.reaper.reap_once()
    return done


async def test_a_pass_tells_what_became_of_the_lost(house: House) -> None:
    for queue, wishes in (("a", {}), ("b", {"max_retries": 0}), ("c", {}), ("d", {})):
        job = await house.running(queue=queue, lease_seconds=LEASE, **wishes)
        if queue == "c":
            await house.operations.cancel(CancelCall(job.id))
        if queue == "d":
            await house.reports.report(report(job))
    assert await lose(house) == Pass(requeued=1, exhausted=1, cancelled=1)


async def test_one_pass_takes_all_that_is_lost_however_many(house: House) -> None:
    number = 2 * REAP_LIMIT + 1
    await asyncio.gather(*(house.create(lease_seconds=LEASE) for _ in range(number)))
    await asyncio.gather(*(house.claim(f"w{n}") for n in range(number)))
    assert (await lose(house)).requeued == number


async def test_passes_at_the_same_time_take_each_job_once(house: House) -> None:
    await house.running(lease_seconds=LEASE)
    passes = [await house.reaper.reap_once()]
    for _ in range(LEASE):
        house.clock.move(INTERVAL_SECONDS)
        passes += await asyncio.gather(*(house.reaper.reap_once() for _ in range(3)))
    assert sum(done.taken for done in passes) == 1


async def test_a_pass_prunes_no_more_than_its_share(store: Store, pruning: House) -> None:
    most = PRUNE_LIMIT * PRUNE_TURNS
    await pruning.create()
    # Many finished jobs at once: copies of one.
    await run(
        store,
        "WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < :most)"
        " INSERT INTO jobs (queue, name, priority, status, delayed, attempt, retry_count,"
        " max_retries, release_count, run_at, retry_base_seconds, retry_factor,"
        " retry_max_seconds, retry_jitter, cancel_requested, tags, created_at, updated_at,"
        " finished_at)"
        " SELECT queue, name, priority, 'succeeded', 0, 0, 0, 3, 0, run_at, 1, 2, 3, 0, 0, '[]',"
        " :now, :now, :now FROM jobs CROSS JOIN n",
        most=most + 1,
        now=START,
    )
    pruning.clock.move(60)
    assert [await pruning.reaper.reap_once() for _ in range(3)] == [
        Pass(pruned=most),
        Pass(pruned=1),
        Pass(),
    ]
    assert [job["status"] for job in await rows(store, "SELECT status FROM jobs")] == ["queued"]


async def test_passes_at_the_same_time_prune_each_job_once(pruning: House) -> None:
    for _ in range(3):
        await pruning.reports.report(report(await pruning.running()))
    pruning.clock.move(60)
    passes = await asyncio.gather(*(pruning.reaper.reap_once() for _ in range(3)))
    assert sum(done.pruned for done in passes) == 3


async def test_without_a_retention_nothing_is_pruned(store: Store, house: House) -> None:
    await house.reports.report(report(await house.running()))
    house.clock.move(10 * 365 * 24 * 3_600)
    assert await house.reaper.reap_once() == Pass()
    assert len(await rows(store, "SELECT id FROM jobs")) == 1


async def test_it_tells_how_long_ago_its_last_pass_was(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert house.reaper.last_pass_seconds is None
    loop = asyncio.get_running_loop()
    with monkeypatch.context() as patch:
        patch.setattr(loop, "time", lambda: 100.0)
        await house.reaper.reap_once()
        patch.setattr(loop, "time", lambda: 107.5)
        assert house.reaper.last_pass_seconds == 7.5


async def test_it_rests_for_its_interval_or_a_little_less(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    rests: list[float] = []

    async def sleep(seconds: float, **_: object) -> None:
        rests.append(seconds)

    monkeypatch.setattr(house.clock, "sleep", sleep)
    for _ in range(50):
        await house.reaper.rest()
    assert all(INTERVAL_SECONDS * (1 - JITTER) <= rest <= INTERVAL_SECONDS for rest in rests)
    assert len(set(rests)) > 1
