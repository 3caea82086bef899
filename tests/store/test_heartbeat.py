"""Heartbeats: the token alone extends a lease, and never past the attempt's time."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from compute_orchestrator.db.engine import Store
from compute_orchestrator.db.statements.claim import claim_jobs
from compute_orchestrator.db.statements.create import create_jobs
from compute_orchestrator.db.statements.heartbeat import heartbeat as beat
from compute_orchestrator.db.statements.leave import Leaving, leave_running
from compute_orchestrator.db.statements.report import Success, held_jobs, succeed
from compute_orchestrator.domain.errors import JobNotFound, LeaseLost
from compute_orchestrator.domain.lease import Heartbeat, LeaseKey
from compute_orchestrator.domain.retry import Failed, Released, decide
from compute_orchestrator.domain.values import JobId, JsonText, LeaseToken, Micros, micros
from compute_orchestrator.services.operations import CancelCall
from compute_orchestrator.services.transactions import Transactions
from compute_orchestrator.services.wakeups import Wakeups
from tests.builders import claim_request, heartbeat, lease_key, new_job, report
from tests.clocks import START
from tests.store.house import House, allow_the_impossible, everything, job_row, run
from tests.store.undoing import one_store, undone

FOREIGN = LeaseToken("f" * 32)


def whole_microseconds(shortest: int, longest: int) -> st.SearchStrategy[float]:
    return st.integers(micros(shortest), micros(longest)).map(lambda n: n / micros(1))


@settings(one_store, max_examples=40)
@given(
    lease=whole_microseconds(1, 100),
    longest=st.none() | whole_microseconds(1, 200),
    gaps=st.lists(st.integers(0, 80_000_000), max_size=6),
)
@example(lease=86_400, longest=1.001, gaps=[0])
@example(lease=10, longest=12.000001, gaps=[2_000_001])
async def test_a_lease_goes_on_from_now_never_back_and_never_past_the_timeout(
    store: Store, lease: float, longest: float | None, gaps: list[int]
) -> None:
    async with undone(store) as session:
        await create_jobs(session, [new_job(timeout_seconds=longest)])
        ((job,),) = await claim_jobs(session, [claim_request(lease_seconds=lease)], ["default"], 60)
        held = lease if longest is None else min(lease, longest)
        expiry = START + micros(held)
        assert job.lease_expires_at == expiry
        now = START
        for gap in gaps:
            session.now = now = Micros(now + gap)
            state = (await beat(session, [heartbeat(job)]))[lease_key(job)]
            end = now + micros(held)
            if longest is not None:
                end = min(end, START + micros(longest))
            expiry = max(expiry, end)
            assert state.lease_expires_at == expiry


async def test_a_heartbeat_keeps_what_it_does_not_name(store: Store, house: House) -> None:
    job = await house.running()
    await house.heartbeats.beat(heartbeat(job, progress="1", checkpoint='{"at":1}'))
    await house.heartbeats.beat(heartbeat(job, progress="2"))
    await house.heartbeats.beat(heartbeat(job))
    row = await job_row(store, job.id)
    assert (row["progress"], row["checkpoint"]) == ("2", '{"at":1}')


async def test_a_heartbeat_touches_no_indexed_column(store: Store, house: House) -> None:
    """Else every sign of life would be paid for in an index too."""
    job = await house.running()
    before = await job_row(store, job.id)
    house.clock.move(5)
    await house.heartbeats.beat(heartbeat(job, progress="1", checkpoint="2"))
    after = await job_row(store, job.id)
    assert {name for name in after if after[name] != before[name]} == {
        *("lease_expires_at", "last_heartbeat_at", "progress", "checkpoint", "updated_at")
    }


async def test_a_cancel_request_comes_back_with_the_next_heartbeat(house: House) -> None:
    job = await house.running()
    assert not (await house.heartbeats.beat(heartbeat(job))).cancel_requested
    await house.operations.cancel(CancelCall(job.id))
    assert (await house.heartbeats.beat(heartbeat(job))).cancel_requested


async def test_a_lease_that_ran_out_goes_on_until_the_reaper_took_it(house: House) -> None:
    job = await house.running()
    house.clock.move(3_600)
    state = await house.heartbeats.beat(heartbeat(job))
    assert state.lease_expires_at == house.clock.now() + micros(60)


async def test_a_foreign_token_extends_nothing(store: Store, house: House) -> None:
    job = await house.running()
    before = await everything(store)
    with pytest.raises(LeaseLost) as lost:
        await house.heartbeats.beat(Heartbeat(LeaseKey(job.id, FOREIGN), "thief", JsonText("1")))
    assert (lost.value.holder, lost.value.locked_at) == ("w", job.locked_at)
    assert lost.value.last_heartbeat_at == job.last_heartbeat_at
    assert await everything(store) == before


async def test_a_stale_token_extends_nothing_once_the_job_runs_again(
    store: Store, house: House
) -> None:
    stale = await house.running()
    await house.reports.report(report(stale, Failed(retry_in_seconds=0)))
    holder = await house.claim("second")
    before = await everything(store)
    with pytest.raises(LeaseLost) as lost:
        await house.heartbeats.beat(heartbeat(stale))
    assert lost.value.holder == "second"
    assert await everything(store) == before
    assert (await house.heartbeats.beat(heartbeat(holder))).job_id == holder.id


async def test_after_the_end_a_heartbeat_learns_that_nobody_holds_the_job(house: House) -> None:
    job = await house.running()
    await house.reports.report(report(job))
    with pytest.raises(LeaseLost) as lost:
        await house.heartbeats.beat(heartbeat(job))
    holder = (lost.value.holder, lost.value.locked_at, lost.value.last_heartbeat_at)
    assert holder == (None, None, None)


async def test_a_heartbeat_for_no_job_says_so(house: House) -> None:
    with pytest.raises(JobNotFound):
        await house.heartbeats.beat(Heartbeat(LeaseKey(JobId(99), FOREIGN), "w"))


async def test_good_and_bad_heartbeats_share_a_statement(store: Store) -> None:
    """Also a stale and a good one for the same job: answers are matched by job and token."""
    async with undone(store) as session:
        await create_jobs(session, [new_job()] * 3)
        (jobs,) = await claim_jobs(session, [claim_request(limit=3)], ["default"], 60)
        first, second, third = (job for job in jobs if job)
        session.now = Micros(START + micros(7))
        beats = [
            Heartbeat(LeaseKey(first.id, FOREIGN), "thief", JsonText('"stolen"')),
            heartbeat(first, progress='"first"'),
            Heartbeat(LeaseKey(second.id, lease_key(first).lease_token), "thief"),
            heartbeat(third, progress='"third"'),
        ]
        states = await beat(session, beats)
        held = await held_jobs(session, [lease_key(job) for job in (first, second, third)])
    assert set(states) == {lease_key(first), lease_key(third)}
    assert [one.job.progress for one in held.values()] == ['"first"', None, '"third"']
    assert held[lease_key(second)].job.lease_expires_at == second.lease_expires_at


async def test_a_token_on_a_job_that_does_not_run_is_no_lease(store: Store, house: House) -> None:
    """No constraint would let such a row be; the statements look at the status all the same."""
    job = await house.running()
    await allow_the_impossible(store)
    await run(store, "UPDATE jobs SET status = 'failed' WHERE id = :id", id=job.id)
    before = await everything(store)
    async with Transactions(store, Wakeups()).write() as session:
        decision = decide(job, Released(), house.clock.now(), 0.0)
        assert await beat(session, [heartbeat(job, progress="1")]) == {}
        assert await succeed(session, [Success(lease_key(job), "w", None)]) == {}
        assert await held_jobs(session, [lease_key(job)]) == {}
        assert await leave_running(session, [Leaving(job, decision, "w")]) == {}
    assert await everything(store) == before
