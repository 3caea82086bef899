"""Long polls: one job wakes one waiter, no wake-up is lost, and nobody waits for too long."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import pytest

from compute_orchestrator.db.engine import Store
from compute_orchestrator.domain.errors import JobNotFound
from compute_orchestrator.domain.job import Job
from compute_orchestrator.domain.lease import ClaimRequest
from compute_orchestrator.domain.retry import Failed, Released, RetryPolicy
from compute_orchestrator.domain.values import JobId
from compute_orchestrator.services.lookout import Lookout
from compute_orchestrator.services.operations import CancelCall, RetryCall
from compute_orchestrator.services.queues import PauseCall
from tests.builders import claim_request, report
from tests.clocks import ManualClock
from tests.services.fakes import called
from tests.store.house import House

LONG = 60.0


class Waiters:
    """Claims that wait, in the order in which they came; `tries` tells who looked for a job."""

    def __init__(self, house: House, monkeypatch: pytest.MonkeyPatch) -> None:
        self.house = house
        self.tries: list[str] = []
        self.gone: dict[str, asyncio.Future[None]] = {}
        claim = house.claims.claim_once

        async def counted(request: ClaimRequest) -> Sequence[Job]:
            jobs = await claim(request)
            self.tries.append(request.worker_id)
            return jobs

        monkeypatch.setattr(house.claims, "claim_once", counted)

    async def come(
        self, name: str, *queues: str, seconds: float = LONG, request_id: str | None = None
    ) -> "asyncio.Task[Job | None]":
        """One more, who has looked in vain and sleeps."""
        tries = len(self.tries)
        self.gone[name] = asyncio.get_running_loop().create_future()
        request = claim_request(name, *queues, request_id=request_id)
        waiting = self.house.claim_patiently(request, seconds, self.gone[name])
        task = asyncio.create_task(waiting)
        await until(lambda: len(self.tries) > tries)
        await called()
        return task

    def sleeping(self, queue: str = "default") -> int:
        return self.house.wakeups.awaited_queues().get(queue, 0)


async def until(done: Callable[[], bool]) -> None:
    while not done():
        await called()


@pytest.fixture
def waiters(house: House, monkeypatch: pytest.MonkeyPatch) -> Waiters:
    return Waiters(house, monkeypatch)


@pytest.fixture
def lookout(house: House) -> Lookout:
    return Lookout(house.transactions, house.wakeups, house.clock)


async def test_one_new_job_wakes_the_first_waiter_and_nobody_else(
    house: House, waiters: Waiters
) -> None:
    first, *others = [await waiters.come(name) for name in "abcde"]
    job = await house.create()
    got = await first
    assert got is not None
    assert got.id == job.id
    await called()
    assert waiters.tries == [*"abcde", "a"]
    assert waiters.sleeping() == 4
    assert not any(other.done() for other in others)
    house.wakeups.close()
    assert await asyncio.gather(*others) == [None] * 4


async def test_so_many_jobs_wake_so_many_waiters(house: House, waiters: Waiters) -> None:
    tasks = [await waiters.come(name) for name in "abcde"]
    jobs = await asyncio.gather(*(house.create() for _ in range(5)))
    taken = await asyncio.gather(*tasks)
    assert sorted(job.id for job in taken if job) == sorted(job.id for job in jobs)


async def test_a_job_of_another_queue_wakes_nobody(house: House, waiters: Waiters) -> None:
    waiting = await waiters.come("a", "mine")
    await house.create(queue="other")
    await called()
    assert waiters.tries == ["a"]
    await house.create(queue="mine")
    assert (await waiting or pytest.fail("nothing")).queue == "mine"


Change = Callable[[House, Job], Coroutine[Any, Any, object]]

CHANGES: dict[str, Change] = {
    "a failure": lambda house, job: house.reports.report(report(job, Failed(retry_in_seconds=0))),
    "a release": lambda house, job: house.reports.report(report(job, Released())),
    "a forced cancel and a retry": lambda house, job: cancelled_and_retried(house, job),
    "a lost lease": lambda house, _: house.pass_time(10),
}


async def cancelled_and_retried(house: House, job: Job) -> None:
    await house.operations.cancel(CancelCall(job.id, force=True))
    await house.operations.retry(RetryCall(job.id))


@pytest.mark.parametrize("change", CHANGES)
async def test_whatever_brings_a_job_back_wakes_a_waiter(
    house: House, waiters: Waiters, change: str
) -> None:
    job = await house.create(lease_seconds=2, retry=RetryPolicy(base_seconds=0))
    lease = await house.claim("before", job.queue)
    waiting = await waiters.come("a")
    await CHANGES[change](house, lease)
    again = await waiting
    assert again is not None
    assert (again.id, again.attempt) == (job.id, 2)


async def test_a_delayed_job_wakes_its_waiter_when_it_is_due(
    house: House, waiters: Waiters
) -> None:
    job = await house.create(run_in_seconds=5)
    waiting = await waiters.come("a")
    house.clock.move(4.9)
    await house.promoter.promote_once()
    assert waiters.tries == ["a"]
    house.clock.move(0.1)
    await house.promoter.promote_once()
    assert (await waiting or pytest.fail("nothing")).id == job.id


async def test_a_queue_that_is_resumed_is_looked_at(
    house: House, waiters: Waiters, lookout: Lookout
) -> None:
    await house.queues.pause(PauseCall("default", paused=True))
    job = await house.create()
    waiting = await waiters.come("a")
    assert not house.wakeups.missed.is_set()
    await lookout.look_once()
    await called()
    assert waiters.tries == ["a"], "of a paused queue nobody can take"
    await house.queues.pause(PauseCall("default", paused=False))
    assert house.wakeups.missed.is_set()
    await lookout.look_once()
    assert (await waiting or pytest.fail("nothing")).id == job.id


async def test_what_another_process_did_is_found_by_a_look(
    store: Store, clock: ManualClock, house: House, waiters: Waiters, lookout: Lookout
) -> None:
    other = House(store, clock)
    taking = [await waiters.come(name) for name in "abc"]
    jobs = [await other.create() for _ in range(2)]
    await lookout.look_once()
    taken = await asyncio.gather(*taking[:2])
    assert {job.id for job in taken if job} == {job.id for job in jobs}
    assert waiters.sleeping() == 1

    ending = asyncio.create_task(watch(house, jobs[0].id))
    await until(lambda: jobs[0].id in house.wakeups.awaited_jobs())
    lease = next(job for job in taken if job and job.id == jobs[0].id)
    await other.reports.report(report(lease))
    await lookout.look_once()
    assert (await ending).status == "succeeded"
    house.wakeups.close()
    assert await taking[2] is None
    await other.close()


async def test_a_wake_up_that_its_waiter_can_not_use_goes_to_the_next(
    house: House, waiters: Waiters
) -> None:
    leaving, staying = await waiters.come("leaving"), await waiters.come("staying")
    # Both in one moment: the first is woken, and its client is gone.
    house.wakeups.work({"default": 1})
    waiters.gone["leaving"].set_result(None)
    assert await leaving is None
    await until(lambda: waiters.tries[-1] == "staying" and len(waiters.tries) == 3)
    job = await house.create()
    assert (await staying or pytest.fail("nothing")).id == job.id


async def test_who_takes_from_another_queue_than_it_was_woken_for_wakes_the_next(
    house: House, waiters: Waiters
) -> None:
    both = await waiters.come("both", "a", "b")
    only = await waiters.come("only", "a")
    await asyncio.gather(house.create(queue="a"), house.create(queue="b", priority=5))
    assert (await both or pytest.fail("nothing")).queue == "b"
    assert (await only or pytest.fail("nothing")).queue == "a"


async def test_a_job_that_comes_between_the_look_and_the_sleep_is_not_missed(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim, created = house.claims.claim_once, False

    async def claim_and_create(request: ClaimRequest) -> Sequence[Job]:
        nonlocal created
        jobs = await claim(request)
        if not created:
            created = True
            await house.create()
        return jobs

    monkeypatch.setattr(house.claims, "claim_once", claim_and_create)
    gone = asyncio.get_running_loop().create_future()
    assert await house.claim_patiently(claim_request(), LONG, gone) is not None


async def test_when_the_time_is_over_there_is_no_job(waiters: Waiters) -> None:
    waiting = await waiters.come("a", seconds=0.01)
    assert await waiting is None
    assert waiters.sleeping() == 0


async def test_a_client_that_is_gone_frees_its_place(house: House, waiters: Waiters) -> None:
    waiting = await waiters.come("a")
    waiters.gone["a"].set_result(None)
    assert await waiting is None
    assert waiters.sleeping() == 0
    assert (await house.create()).status == "queued"


async def test_a_cancelled_waiter_passes_its_wake_up_on(house: House, waiters: Waiters) -> None:
    cancelled, next_one = await waiters.come("cancelled"), await waiters.come("next")
    house.wakeups.work({"default": 1})
    cancelled.cancel()
    await asyncio.wait([cancelled])
    await until(lambda: waiters.tries[-1] == "next" and len(waiters.tries) == 3)
    house.wakeups.close()
    assert await next_one is None


# The end of a job.


def watch(house: House, job_id: JobId, seconds: float = LONG) -> Coroutine[Any, Any, Job]:
    gone = asyncio.get_running_loop().create_future()
    return house.jobs.get_patiently(job_id, seconds, gone)


async def test_the_end_of_a_job_wakes_all_who_watch_it(house: House) -> None:
    job, other = await house.running(), await house.running()
    watching = [asyncio.create_task(watch(house, job.id)) for _ in range(3)]
    await until(lambda: job.id in house.wakeups.awaited_jobs())
    await house.reports.report(report(other))
    await called()
    assert not any(task.done() for task in watching)
    await house.reports.report(report(job))
    assert {(it.id, it.status) for it in await asyncio.gather(*watching)} == {(job.id, "succeeded")}
    assert house.wakeups.awaited_jobs() == []


async def test_a_final_job_is_not_waited_for(house: House) -> None:
    job = await house.create()
    await house.operations.cancel(CancelCall(job.id))
    assert (await watch(house, job.id)).status == "cancelled"


async def test_when_the_time_is_over_a_job_is_shown_as_it_stands(house: House) -> None:
    job = await house.running()
    assert (await watch(house, job.id, 0.01)).status == "running"


async def test_nobody_waits_for_a_job_that_does_not_exist(house: House) -> None:
    with pytest.raises(JobNotFound):
        await watch(house, JobId(1))
    assert house.wakeups.awaited_jobs() == []


async def test_at_the_end_everybody_is_answered(house: House, waiters: Waiters) -> None:
    job = await house.running()
    waiting, watching = await waiters.come("a"), asyncio.create_task(watch(house, job.id))
    await until(lambda: job.id in house.wakeups.awaited_jobs())
    await called()
    house.wakeups.close()
    assert await waiting is None
    assert (await watching).status == "running"
    late = await house.claim_patiently(
        claim_request(), LONG, asyncio.get_running_loop().create_future()
    )
    assert late is None


async def test_a_repeated_request_ends_its_older_copy_which_takes_nothing_after_it(
    house: House, waiters: Waiters
) -> None:
    """Its caller went away unseen and asked again: what the older one took would be nobody's."""
    older = await waiters.come("w", request_id="r")
    assert not await house.claims.claim(claim_request("w", request_id="r"))
    assert await older is None
    await house.create()
    assert waiters.sleeping() == 0
    assert (await house.claim("other")).attempt == 1


async def test_copies_of_a_request_that_wait_get_one_lease(house: House, waiters: Waiters) -> None:
    first = await waiters.come("w", request_id="r")
    others = [
        asyncio.create_task(
            house.claim_patiently(claim_request("w", request_id="r"), LONG, waiters.gone["w"])
        )
        for _ in range(3)
    ]
    await until(lambda: first.done() and waiters.sleeping() == 1)
    job = await house.create()
    got = [one for one in await asyncio.gather(*others) if one is not None]
    assert {(one.id, one.attempt) for one in got} == {(job.id, 1)}
