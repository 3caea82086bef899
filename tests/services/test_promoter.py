"""The promoter: it sleeps until the next job is due, and wakes for one that comes in between."""

import asyncio
from collections.abc import AsyncGenerator

import pytest

from compute_orchestrator.domain.retry import Failed, Released
from compute_orchestrator.services.promoter import (
    LONGEST_SLEEP_SECONDS,
    PROMOTE_LIMIT,
    SHORTEST_SLEEP_SECONDS,
)
from tests.builders import report
from tests.clocks import ManualClock
from tests.store.house import House


class Sleeping(ManualClock):
    """Tells how long a loop means to sleep, and lets it sleep until it is woken."""

    def __init__(self) -> None:
        super().__init__()
        self.sleeps = asyncio.Queue[float]()

    async def sleep(self, seconds: float, *, until: asyncio.Event | None = None) -> None:
        self.sleeps.put_nowait(seconds)
        await (until or asyncio.Event()).wait()


@pytest.fixture
def clock() -> Sleeping:
    return Sleeping()


@pytest.fixture
async def loop(house: House) -> AsyncGenerator[asyncio.Queue[float]]:
    """The promoter at work, after its first step; what comes is how long it means to sleep."""
    assert isinstance(house.clock, Sleeping)

    async def work() -> None:
        while True:
            await house.promoter.promote_once()
            await house.promoter.rest()

    task = asyncio.create_task(work())
    assert await house.clock.sleeps.get() == LONGEST_SLEEP_SECONDS
    yield house.clock.sleeps
    task.cancel()
    await asyncio.wait([task])


async def test_it_wakes_for_a_new_job_and_sleeps_until_it_is_due(
    house: House, loop: asyncio.Queue[float]
) -> None:
    await house.create(run_in_seconds=20)
    assert await loop.get() == 20
    await house.create(run_in_seconds=5)
    assert await loop.get() == 5
    await house.create(run_in_seconds=10)
    assert await loop.get() == 5


async def test_it_wakes_for_a_retry_and_for_a_release_into_the_future(
    house: House, loop: asyncio.Queue[float]
) -> None:
    await house.reports.report(report(await house.running(), Failed(retry_in_seconds=30)))
    assert await loop.get() == 30
    await house.reports.report(report(await house.running(), Released(3)))
    assert await loop.get() == 3


async def test_it_never_sleeps_for_longer_than_a_minute(
    house: House, loop: asyncio.Queue[float]
) -> None:
    await house.create(run_in_seconds=86_400)
    assert await loop.get() == LONGEST_SLEEP_SECONDS


async def test_it_sleeps_on_while_jobs_come_for_now(
    house: House, loop: asyncio.Queue[float]
) -> None:
    await house.reports.report(report(await house.running()))
    assert loop.empty()
    await house.create(run_in_seconds=7)
    assert await loop.get() == 7


async def test_a_job_that_comes_between_the_look_and_the_sleep_is_not_missed(house: House) -> None:
    assert isinstance(house.clock, Sleeping)
    await house.promoter.promote_once()
    await house.create(run_in_seconds=1)
    await house.promoter.rest()
    assert house.clock.sleeps.qsize() == 1


async def test_what_is_due_when_it_looks_is_not_slept_over(house: House) -> None:
    assert isinstance(house.clock, Sleeping)
    await house.create(run_in_seconds=5)
    await house.promoter.promote_once()
    house.clock.move(100)
    rest = asyncio.create_task(house.promoter.rest())
    assert await house.clock.sleeps.get() == SHORTEST_SLEEP_SECONDS
    rest.cancel()
    await asyncio.wait([rest])


async def test_one_step_promotes_all_that_is_due_however_many(house: House) -> None:
    number = PROMOTE_LIMIT + 1
    await asyncio.gather(*(house.create(run_in_seconds=5) for _ in range(number)))
    house.clock.move(5)
    promoted = await house.promoter.promote_once()
    assert promoted.queues == {"default": number}
    assert (await house.queues.all())[0].waiting.queued == number


async def test_steps_at_the_same_time_promote_each_job_once(house: House) -> None:
    for _ in range(3):
        await house.create(run_in_seconds=5)
    house.clock.move(5)
    steps = await asyncio.gather(*(house.promoter.promote_once() for _ in range(3)))
    assert sum(step.queues.total() for step in steps) == 3
