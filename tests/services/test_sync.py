"""Sync where the server is overloaded, stops, or its store is away: what is told, what is kept."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from compute_orchestrator.db.engine import Store
from compute_orchestrator.domain.errors import Overloaded, ShuttingDown, StoreUnavailable
from compute_orchestrator.domain.job import Job
from compute_orchestrator.domain.lease import ClaimRequest, LeaseState
from compute_orchestrator.services.sync import SyncCall
from tests.builders import claim_request, heartbeat, report
from tests.clocks import ManualClock
from tests.services.fakes import Notes, called, hold, submit
from tests.store.house import House

MOST_CALLS = 4


@pytest.fixture
async def narrow(store: Store, clock: ManualClock) -> AsyncGenerator[House]:
    """A house in which few calls may wait."""
    house = House(store, clock, max_waiting_calls=MOST_CALLS, one_lane=True)
    yield house
    await house.close()


def sync_call(
    *, reports: list[Job] | None = None, beats: list[Job] | None = None, **parts: Any
) -> SyncCall:
    return SyncCall(
        "w",
        None,
        [report(job) for job in reports or []],
        [heartbeat(job) for job in beats or []],
        parts.get("claim"),
        parts.get("wait_seconds", 0),
    )


def claiming(**wishes: Any) -> ClaimRequest:
    return claim_request("w", limit=5, **wishes)


async def test_overload_refuses_the_claim_and_takes_what_the_worker_says(narrow: House) -> None:
    done, running = await narrow.running(), await narrow.running()
    waiting = await narrow.create()
    notes = Notes(rank=1)
    await hold(narrow.coalescer, notes)
    callers = submit(narrow.coalescer, notes, map(str, range(MOST_CALLS)))
    await called()
    with pytest.raises(Overloaded):
        await narrow.sync.sync(sync_call(claim=claiming()))
    busy = asyncio.create_task(
        narrow.sync.sync(sync_call(reports=[done], beats=[running], claim=claiming()))
    )
    await called()
    notes.go.set()
    answer = await busy
    await asyncio.gather(*callers)
    (reported,), (beat,) = answer.reports, answer.heartbeats
    assert isinstance(reported, Job)
    assert reported.status == "succeeded"
    assert isinstance(beat, LeaseState)
    assert answer.jobs == ()
    assert (await narrow.jobs.get(waiting.id)).status == "queued"


async def test_a_claim_that_may_be_a_repeat_is_never_told_that_there_are_no_jobs(
    narrow: House,
) -> None:
    """Overload must not make a worker forget the leases that an answer before was to bring."""
    done, waiting = await narrow.running(), await narrow.create()
    claim = claiming(request_id="r")
    (held,) = (await narrow.sync.sync(sync_call(claim=claim))).jobs
    notes = Notes(rank=1)
    await hold(narrow.coalescer, notes)
    callers = submit(narrow.coalescer, notes, map(str, range(MOST_CALLS)))
    await called()
    busy = asyncio.create_task(narrow.sync.sync(sync_call(reports=[done], claim=claim)))
    await called()
    notes.go.set()
    with pytest.raises(Overloaded):
        await busy
    await asyncio.gather(*callers)
    answer = await narrow.sync.sync(sync_call(reports=[done], claim=claim))
    assert [one.status for one in answer.reports if isinstance(one, Job)] == ["succeeded"]
    assert [(one.id, one.lease_token) for one in answer.jobs] == [(waiting.id, held.lease_token)]


async def test_at_shutdown_what_was_taken_is_answered_and_the_rest_refused(house: House) -> None:
    job = await house.running()
    await house.coalescer.close(5)
    for call in (sync_call(reports=[job]), sync_call(claim=claiming())):
        with pytest.raises(ShuttingDown):
            await house.sync.sync(call)


async def test_where_one_part_is_not_known_the_whole_call_is_to_be_repeated(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And a lease of which nobody is told goes back, unless it can be asked for again."""
    job = await house.running()

    async def away(*_: object) -> None:
        raise StoreUnavailable("away")

    monkeypatch.setattr(house.reports, "report_many", away)
    for request_id, status in ((None, "queued"), ("r", "running")):
        waiting = await house.create(queue=str(request_id))
        claim = ClaimRequest("w", (str(request_id),), request_id=request_id, limit=3)
        with pytest.raises(StoreUnavailable):
            await house.sync.sync(sync_call(reports=[job], claim=claim))
        assert (await house.jobs.get(waiting.id)).status == status
    monkeypatch.undo()
    claim = ClaimRequest("w", ("r",), request_id="r", limit=3)
    answer = await house.sync.sync(sync_call(reports=[job], claim=claim))
    assert [one.status for one in answer.reports if isinstance(one, Job)] == ["succeeded"]
    assert [one.queue for one in answer.jobs] == ["r"]


async def test_a_call_that_waits_gets_all_that_there_is_when_it_wakes(house: House) -> None:
    gone = asyncio.get_running_loop().create_future()
    call = sync_call(claim=claiming(), wait_seconds=60)
    waiting = asyncio.create_task(house.sync.sync(call, gone))
    while not house.wakeups.awaited_queues():
        await called()
    made = [await house.create() for _ in range(3)]
    answer = await waiting
    taken = {job.id for job in answer.jobs}
    assert taken
    rest = (await house.sync.sync(sync_call(claim=claiming()))).jobs
    assert sorted(taken | {job.id for job in rest}) == [job.id for job in made]


async def test_a_call_with_something_to_say_does_not_wait(house: House) -> None:
    job = await house.running()
    gone = asyncio.get_running_loop().create_future()
    call = sync_call(beats=[job], claim=claiming(), wait_seconds=60)
    answer = await house.sync.sync(call, gone)
    assert answer.jobs == []
    assert not house.wakeups.awaited_queues()
