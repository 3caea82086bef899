"""Overload and shutdown: who is refused first, and what is still carried."""

import asyncio
from collections.abc import AsyncGenerator

import pytest

from compute_orchestrator.db.engine import Store
from compute_orchestrator.domain.errors import Overloaded, ShuttingDown, StoreUnavailable
from tests.builders import heartbeat, report
from tests.clocks import ManualClock
from tests.services.fakes import Notes, Turn, called, hold, noted, submit
from tests.store.house import House

MOST_CALLS, LONGEST_SECONDS = 4, 5.0


class Time:
    """The event loop's own time, moved by hand: it tells how long a call has waited."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._moved = 0.0
        loop = asyncio.get_running_loop()
        real = loop.time
        monkeypatch.setattr(loop, "time", lambda: real() + self._moved)

    def move(self, seconds: float) -> None:
        self._moved += seconds


@pytest.fixture
async def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    return Time(monkeypatch)


@pytest.fixture
async def narrow(store: Store, clock: ManualClock) -> AsyncGenerator[House]:
    """A house in which few calls may wait."""
    house = House(
        store,
        clock,
        max_waiting_calls=MOST_CALLS,
        max_waiting_seconds=LONGEST_SECONDS,
        one_lane=True,
    )
    yield house
    await house.close()


async def test_too_many_calls_refuse_creates_first_and_heartbeats_last(narrow: House) -> None:
    log: Turn = []
    plain, vital = Notes("plain", log=log), Notes("vital", rank=1, vital=True, log=log)
    await hold(narrow.coalescer, plain)
    callers = submit(narrow.coalescer, plain, [f"plain {n}" for n in range(MOST_CALLS)])
    await called()
    with pytest.raises(Overloaded) as refused:
        await narrow.coalescer.submit(plain.operation, "plain too many")
    assert refused.value.retry_after_seconds > 0
    callers += submit(narrow.coalescer, vital, [f"vital {n}" for n in range(MOST_CALLS)])
    await called()
    with pytest.raises(Overloaded):
        await narrow.coalescer.submit(vital.operation, "vital too many")
    plain.go.set()
    assert len(await asyncio.gather(*callers)) == 2 * MOST_CALLS
    assert await narrow.coalescer.submit(plain.operation, "after") == "noted after"
    assert not [name for name in await noted(narrow) if "too many" in name]


async def test_while_calls_wait_too_long_no_others_are_let_in(narrow: House, time: Time) -> None:
    plain = Notes("plain")
    await hold(narrow.coalescer, plain)
    (waits,) = submit(narrow.coalescer, plain, ["waits"])
    await called()
    time.move(LONGEST_SECONDS)
    with pytest.raises(Overloaded):
        await narrow.coalescer.submit(plain.operation, "too late")
    with pytest.raises(Overloaded):
        await waits
    plain.go.set()
    assert await narrow.coalescer.submit(plain.operation, "after") == "noted after"
    assert await noted(narrow) == {"first", "after"}


async def test_a_store_that_stands_still_holds_no_caller_for_ever(
    narrow: House, time: Time
) -> None:
    plain, vital = Notes("plain"), Notes("vital", vital=True)
    runs = await hold(narrow.coalescer, plain)
    (waits,) = submit(narrow.coalescer, plain, ["waits"])
    (beats,) = submit(narrow.coalescer, vital, ["beats"])
    await called()
    time.move(LONGEST_SECONDS - 0.5)
    (later,) = submit(narrow.coalescer, plain, ["later"])
    await called()
    assert not waits.done()
    time.move(0.5)
    with pytest.raises(Overloaded):
        await waits
    assert not beats.done()
    assert not later.done()
    time.move(LONGEST_SECONDS)
    for refused in (beats, later):
        with pytest.raises(Overloaded):
            await refused
    assert not runs.done()
    time.move(LONGEST_SECONDS)
    with pytest.raises(StoreUnavailable, match="not known"):
        await runs
    plain.go.set()
    assert await narrow.coalescer.submit(plain.operation, "after") == "noted after"
    # Of the one that ran nobody could say what became of it; those that waited were not written.
    assert await noted(narrow) == {"first", "after"}


async def test_overload_costs_nobody_a_lease(narrow: House) -> None:
    """The real calls: what a producer asks is refused while a worker is still heard."""
    job, other = await narrow.running(), await narrow.running()
    notes = Notes(rank=1)
    await hold(narrow.coalescer, notes)
    callers = submit(narrow.coalescer, notes, map(str, range(MOST_CALLS)))
    await called()
    with pytest.raises(Overloaded):
        await narrow.create()
    with pytest.raises(Overloaded):
        await narrow.claim()
    beat = asyncio.create_task(narrow.heartbeats.beat(heartbeat(job)))
    end = asyncio.create_task(narrow.reports.report(report(other)))
    await called()
    notes.go.set()
    assert (await beat).job_id == job.id
    assert (await end).status == "succeeded"
    await asyncio.gather(*callers)


# Shutdown.


async def test_closing_carries_what_waits_and_admits_nothing_more(house: House) -> None:
    notes = Notes(subjects=dict.fromkeys("abc", "one"))
    first = await hold(house.coalescer, notes)
    callers = submit(house.coalescer, notes, "abc")
    await called()
    closing = asyncio.create_task(house.coalescer.close(60))
    await called()
    with pytest.raises(ShuttingDown):
        await house.coalescer.submit(notes.operation, "late")
    assert not closing.done()
    notes.go.set()
    await closing
    assert [caller.result() for caller in (first, *callers)] == [
        f"noted {name}" for name in ("first", *"abc")
    ]
    assert await noted(house) == {"first", *"abc"}
    with pytest.raises(ShuttingDown):
        await house.coalescer.submit(notes.operation, "later")


async def test_closing_carries_a_call_that_came_in_the_same_moment(house: House) -> None:
    notes = Notes()
    await house.coalescer.submit(notes.operation, "before")
    (caller,) = submit(house.coalescer, notes, ["at the last moment"])
    closing = asyncio.create_task(house.coalescer.close(60))
    assert await caller == "noted at the last moment"
    await closing


async def test_closing_what_never_worked_is_done_at_once(house: House) -> None:
    await house.coalescer.close(60)


async def test_after_the_deadline_who_waits_is_refused_and_who_runs_must_ask_again(
    store: Store, clock: ManualClock
) -> None:
    house, notes = House(store, clock, one_lane=True), Notes()
    running = await hold(house.coalescer, notes)
    waiting = submit(house.coalescer, notes, ["a", "b"])
    await called()
    await house.coalescer.close(0)
    outcomes = await asyncio.gather(running, *waiting, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [
        StoreUnavailable,
        ShuttingDown,
        ShuttingDown,
    ]
    assert await noted(house) == set()
