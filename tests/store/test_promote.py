"""Promote: what is due becomes claimable, and nothing else changes."""

from hypothesis import given, settings
from hypothesis import strategies as st

from compute_orchestrator.db.engine import Store
from compute_orchestrator.db.statements.create import create_jobs
from compute_orchestrator.db.statements.promote import next_due, promote_due
from compute_orchestrator.db.statements.read import find_jobs
from compute_orchestrator.domain.values import Micros, micros
from tests.builders import new_job
from tests.clocks import START
from tests.store.house import House, everything, job_row, trail
from tests.store.undoing import one_store, undone


@settings(one_store, max_examples=40)
@given(
    delays=st.lists(st.integers(1, 6), min_size=1, max_size=15),
    passed=st.integers(0, 7),
    limit=st.integers(1, 20),
)
async def test_the_first_due_jobs_become_claimable_and_no_others(
    store: Store, delays: list[int], passed: int, limit: int
) -> None:
    async with undone(store) as session:
        created = await create_jobs(
            session, [new_job(queue=f"q{d % 3}", run_at=Micros(START + d)) for d in delays]
        )
        assert await next_due(session) == min(delays)
        session.now = now = Micros(START + passed)
        promoted = await promote_due(session, limit)
        jobs = await find_jobs(session, [job.id for job in created])
        still_delayed = [job.run_at - now for job in jobs.values() if job.delayed]
        assert await next_due(session) == min(still_delayed, default=None)
    due = sorted(job.run_at for job in created if job.run_at <= now)[:limit]
    claimable = [job for job in jobs.values() if not job.delayed]
    assert sorted(job.run_at for job in claimable) == due
    assert promoted.queues.total() == len(due)
    assert promoted.queues == {
        queue: sum(job.queue == queue for job in claimable) for queue in promoted.queues
    }


async def test_to_the_outside_a_promoted_job_was_queued_before(store: Store, house: House) -> None:
    job = await house.create(run_in_seconds=5)
    before = await job_row(store, job.id)
    house.clock.move(5)
    assert (await house.promoter.promote_once()).queues.total() == 1
    assert await job_row(store, job.id) == before | {"delayed": 0}
    assert [step["action"] for step in await trail(store, job.id)] == ["create"]


async def test_nothing_due_writes_nothing(store: Store, house: House) -> None:
    await house.create(run_in_seconds=5)
    await house.create()
    before = await everything(store)
    house.clock.move(4.999999)
    assert (await house.promoter.promote_once()).queues.total() == 0
    assert await everything(store) == before


async def test_nothing_delayed_has_no_next_time(house: House) -> None:
    await house.create()
    async with house.transactions.read() as session:
        assert await next_due(session) is None


async def test_a_promoted_job_keeps_its_time_and_so_its_place(house: House) -> None:
    late = await house.create(run_in_seconds=10)
    early = await house.create(run_in_seconds=5)
    house.clock.move(10)
    fresh = await house.create()
    await house.promoter.promote_once()
    assert [(await house.claim()).id for _ in range(3)] == [early.id, late.id, fresh.id]
    assert micros(10) == late.run_at - START
