"""The watch of promise 9: a lease is taken only by a reaper that was awake for as long as it is."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compute_orchestrator.db.engine import Store
from compute_orchestrator.db.sessions import ReadSession, Statement, WriteSession
from compute_orchestrator.db.statements.claim import claim_jobs
from compute_orchestrator.db.statements.create import create_jobs
from compute_orchestrator.db.statements.reap import (
    Watch,
    any_running,
    expired_leases,
    note_pass,
)
from compute_orchestrator.domain.lifecycle import Status
from compute_orchestrator.domain.retry import Failed
from compute_orchestrator.domain.values import JsonText, Micros, micros
from compute_orchestrator.services.reaper import Pass
from tests.builders import claim_request, heartbeat, new_job, report
from tests.clocks import START
from tests.store.house import INTERVAL_SECONDS, House, everything, job_row, rows, trail
from tests.store.undoing import one_store, undone

GAP = micros(2 * INTERVAL_SECONDS)


async def note(session: WriteSession) -> Watch:
    """A pass that no other replica makes at the same time."""
    watch = await note_pass(session, GAP)
    assert watch is not None
    return watch


async def passes(session: WriteSession, *times: int) -> list[int]:
    """Passes at these times after the start; since when each says that the reaper is awake."""
    awake: list[int] = []
    for time in times:
        session.now = Micros(START + time)
        awake.append((await note(session)).since - START)
    return awake


@pytest.mark.parametrize(
    ("times", "awake"),
    [
        ((0,), [0]),
        ((0, 0), [0, 0]),
        ((0, 1, 2), [0, 0, 0]),
        ((0, GAP), [0, 0]),
        ((0, GAP, 2 * GAP, 3 * GAP), [0, 0, 0, 0]),
        ((0, GAP + 1), [0, GAP + 1]),
        ((0, GAP + 1, GAP + 2), [0, GAP + 1, GAP + 1]),
        ((0, -1), [0, -1]),
        ((0, GAP, GAP - 1, GAP), [0, 0, GAP - 1, GAP - 1]),
        ((0, 1_000 * GAP), [0, 1_000 * GAP]),
    ],
    ids=str,
)
async def test_a_gap_or_a_step_backwards_starts_the_watch_anew(
    store: Store, times: tuple[int, ...], awake: list[int]
) -> None:
    async with undone(store) as session:
        assert await passes(session, *times) == awake


@settings(one_store, max_examples=40)
@given(
    leases=st.lists(st.tuples(st.integers(0, 12), st.integers(1, 12)), min_size=1, max_size=6),
    steps=st.lists(st.integers(-2, 6), max_size=10),
    limit=st.integers(1, 8),
)
async def test_leases_are_taken_when_they_ran_out_under_the_eyes_of_the_reaper(
    store: Store, leases: list[tuple[int, int]], steps: list[int], limit: int
) -> None:
    """Against a model, second by second; the longest gap is four of them."""
    second = micros(1)
    async with undone(store) as session:
        jobs: list[tuple[int, int, int]] = []
        for claimed, held in sorted(leases):
            session.now = Micros(START + claimed * second)
            await create_jobs(session, [new_job(run_at=START)])
            request = claim_request(lease_seconds=held)
            ((job,),) = await claim_jobs(session, [request], ["default"], 60)
            jobs.append((job.id, claimed + held, held))
        since = last = now = 12
        await passes(session, now * second)
        for step in steps:
            now += step
            since = since if 0 <= now - last <= 4 else now
            last = now
            session.now = Micros(START + now * second)
            watch = await note(session)
            expired = await expired_leases(session, watch, limit)
            expected = [
                job_id for job_id, expiry, held in jobs if expiry <= now and since + held <= now
            ]
            assert [one.job.id for one in expired] == expected[:limit]
            assert {one.now for one in expired} <= {session.now}


@pytest.mark.parametrize(("early", "taken"), [(1, 0), (0, 1)])
async def test_both_bounds_are_exact_to_the_microsecond(
    store: Store, early: int, taken: int
) -> None:
    async with undone(store) as session:
        await create_jobs(session, [new_job()])
        await claim_jobs(session, [claim_request(lease_seconds=4)], ["default"], 60)
        awake = await passes(session, 0, GAP - early)
        assert awake == [0, 0]
        expired = await expired_leases(session, await note(session), 9)
        assert len(expired) == taken


async def test_an_idle_store_is_not_written_to(store: Store, house: House) -> None:
    await house.create()
    await house.create(run_in_seconds=50)
    await house.reports.report(report(await house.claim(), Failed(retryable=False)))
    before = await everything(store)
    for _ in range(5):
        house.clock.move(INTERVAL_SECONDS)
        assert await house.reaper.reap_once() == Pass()
    assert await everything(store) == before
    assert before["watch"] == []


async def test_the_first_pass_after_idle_ones_counts_as_one_after_a_gap(
    store: Store, house: House
) -> None:
    first = await house.running(lease_seconds=6)
    await house.reaper.reap_once()
    await house.reports.report(report(first))
    await house.pass_time(100)
    await house.running(lease_seconds=6)
    await house.reaper.reap_once()
    (watch,) = await rows(store, "SELECT since FROM watch")
    assert watch["since"] == house.clock.now()


@pytest.mark.parametrize("away", [3_600.0, -3_600.0])
async def test_after_any_gap_a_living_worker_has_the_time_of_one_lease(
    house: House, away: float
) -> None:
    job = await house.running(lease_seconds=10)
    await house.reaper.reap_once()
    house.clock.move(away)
    assert (await house.pass_time(10)).taken == 0
    await house.heartbeats.beat(heartbeat(job))
    assert (await house.pass_time(9)).taken == 0


async def test_a_worker_that_stays_silent_after_a_gap_loses_its_lease(house: House) -> None:
    await house.running(lease_seconds=10)
    await house.reaper.reap_once()
    house.clock.move(3_600)
    assert (await house.pass_time(12)).requeued == 1


@pytest.mark.parametrize("back", [3_600.0, 5.0])
async def test_a_clock_set_back_parks_no_job_with_a_dead_worker(house: House, back: float) -> None:
    await house.running(lease_seconds=10)
    await house.reaper.reap_once()
    house.clock.move(-back)
    assert (await house.pass_time(10)).taken == 0
    assert (await house.pass_time(2)).requeued == 1


async def test_a_lease_that_the_watch_never_saw_is_pulled_in_too(house: House) -> None:
    """Claimed after a time without passes, so that the last one lies behind the step back."""
    first = await house.running()
    await house.reaper.reap_once()
    await house.reports.report(report(first))
    house.clock.move(7_200)
    await house.running(lease_seconds=10)
    house.clock.move(-3_600)
    assert (await house.pass_time(12)).requeued == 1


async def test_after_a_clock_set_back_heartbeats_and_the_timeout_count_from_then(
    store: Store, house: House
) -> None:
    job = await house.running(lease_seconds=10, timeout_seconds=30)
    await house.reaper.reap_once()
    house.clock.move(-3_600)
    now = house.clock.now()
    await house.reaper.reap_once()
    row = await job_row(store, job.id)
    assert (row["locked_at"], row["lease_expires_at"]) == (now, now + micros(10))
    house.clock.move(4)
    state = await house.heartbeats.beat(heartbeat(job))
    assert state.lease_expires_at == now + micros(14)
    for _ in range(13):
        assert (await house.pass_time(2)).taken == (house.clock.now() >= now + micros(30))
        if house.clock.now() < now + micros(30):
            await house.heartbeats.beat(heartbeat(job))
    assert (await trail(store, job.id))[-1]["reason"] == "timeout"


async def test_a_gap_leaves_leases_of_their_length_as_they_are(store: Store, house: House) -> None:
    job = await house.running(lease_seconds=10)
    await house.reaper.reap_once()
    house.clock.move(1)
    await house.heartbeats.beat(heartbeat(job))
    before = await job_row(store, job.id)
    house.clock.move(3_600)
    await house.reaper.reap_once()
    assert await job_row(store, job.id) == before


async def test_a_silent_worker_loses_its_lease_and_the_trail_says_why(
    store: Store, house: House
) -> None:
    job = await house.running(lease_seconds=6)
    house.clock.move(1)
    await house.heartbeats.beat(heartbeat(job))
    assert (await house.pass_time(10)).requeued == 1
    row, step = await job_row(store, job.id), (await trail(store, job.id))[-1]
    assert (row["status"], row["retry_count"], row["locked_by"]) == (Status.QUEUED, 1, None)
    told = [step[name] for name in ("action", "actor", "reason", "lease_token")]
    assert told == ["lose", "reaper", "lease-expired", job.lease_token]


async def test_an_attempt_over_its_timeout_is_taken_with_its_own_reason(
    store: Store, house: House
) -> None:
    job = await house.running(lease_seconds=6, timeout_seconds=8)
    for _ in range(7):
        assert (await house.pass_time(1)).taken == 0
        await house.heartbeats.beat(heartbeat(job))
    assert (await house.pass_time(1)).requeued == 1
    assert (await trail(store, job.id))[-1]["reason"] == "timeout"


async def test_a_lease_that_ran_out_before_the_timeout_is_told_as_such_however_late(
    store: Store, house: House
) -> None:
    job = await house.running(lease_seconds=6, timeout_seconds=60)
    house.clock.move(3_600)
    assert (await house.pass_time(8)).requeued == 1
    assert (await trail(store, job.id))[-1]["reason"] == "lease-expired"


async def test_the_timeout_is_told_also_when_it_is_no_round_number(
    store: Store, house: House
) -> None:
    """To the microsecond: the pass that finds the lease at its end finds the attempt at its end."""
    job = await house.running(timeout_seconds=1.001)
    await house.reaper.reap_once()
    house.clock.move(1.001)
    assert (await house.reaper.reap_once()).requeued == 1
    assert (await trail(store, job.id))[-1]["reason"] == "timeout"


async def test_any_running_sees_running_jobs_alone(house: House) -> None:
    async def seen() -> bool:
        async with house.transactions.read() as session:
            return await any_running(session)

    assert not await seen()
    await house.create()
    assert not await seen()
    job = await house.claim()
    assert await seen()
    await house.reports.report(report(job))
    assert not await seen()


async def test_what_the_reaper_brings_is_short_however_large_the_jobs_are(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A database can't end the transaction of a replica that froze in the middle of an answer."""
    large = JsonText(f'"{"x" * 100_000}"')
    job = await house.running(payload=large, lease_seconds=6)
    await house.heartbeats.beat(heartbeat(job, progress=large, checkpoint=large))
    brought: list[Any] = []
    fetch = ReadSession.fetch

    async def noted(session: ReadSession, statement: Statement, **parameters: Any) -> Any:
        rows = await fetch(session, statement, **parameters)
        brought.extend(rows)
        return rows

    monkeypatch.setattr(ReadSession, "fetch", noted)
    assert (await house.pass_time(10)).requeued == 1
    assert len(repr(brought)) < 10_000
