"""Prune: what finished long ago goes with all that belongs to it, and nothing else does."""

from compute_orchestrator.db.engine import Store
from compute_orchestrator.db.statements.prune import prune_finished
from compute_orchestrator.domain.job import Job
from compute_orchestrator.domain.retry import Failed
from tests.builders import report
from tests.store.house import House, everything, rows

MINUTE = 60.0


async def done(house: House, **wishes: object) -> Job:
    """A job that ended just now."""
    return await house.reports.report(report(await house.running(**wishes)))


async def prune(house: House, retention_seconds: float, limit: int = 100) -> int:
    async with house.transactions.write() as session:
        return await prune_finished(session, retention_seconds, limit)


async def test_a_job_goes_with_its_tags_its_trail_and_its_key(store: Store, house: House) -> None:
    kept = await house.create("kept", tags=("a", "b"), key="kept")
    before = await everything(store)
    await done(house, name="old", queue="q", tags=("b", "c", "c"), key="old")
    house.clock.move(MINUTE)
    assert await prune(house, MINUTE) == 1
    after = await everything(store)
    for table in ("jobs", "job_tags", "job_events", "idempotency_keys"):
        assert after[table] == before[table], table
    assert [row["id"] for row in after["jobs"]] == [kept.id]


async def test_a_job_is_kept_until_exactly_its_time(house: House) -> None:
    await done(house)
    house.clock.move(MINUTE - 0.000001)
    assert await prune(house, MINUTE) == 0
    house.clock.move(0.000001)
    assert await prune(house, MINUTE) == 1


async def test_only_finished_jobs_go(store: Store, house: House) -> None:
    await house.running(queue="running")
    await house.create(queue="waiting")
    await house.create(queue="delayed", run_in_seconds=5)
    again = await house.running(queue="again")
    await house.reports.report(report(again, Failed(retry_in_seconds=0)))
    house.clock.move(1_000_000)
    before = await everything(store)
    assert await prune(house, 0) == 0
    assert await everything(store) == before


async def test_the_longest_finished_go_first_and_no_more_than_the_limit(
    store: Store, house: House
) -> None:
    ended: list[Job] = []
    for _ in range(4):
        ended.append(await done(house))
        house.clock.move(1)
    assert await prune(house, 0, limit=3) == 3
    assert [row["id"] for row in await rows(store, "SELECT id FROM jobs")] == [ended[-1].id]


async def test_what_is_counted_stays_counted(house: House) -> None:
    await done(house)
    house.clock.move(1)
    await prune(house, 0)
    stats = await house.stats.stats()
    assert (stats.totals.created, stats.totals.succeeded) == (1, 1)
