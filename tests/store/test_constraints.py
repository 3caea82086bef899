"""The store itself refuses rows that can't be: what no statement should ever write."""

import pytest
from sqlalchemy.exc import IntegrityError

from compute_orchestrator.db.engine import Store
from compute_orchestrator.domain.job import Job
from tests.builders import report
from tests.store.house import House, everything, run

IMPOSSIBLE = [
    ("queued", "status = 'blocked'"),
    ("queued", "status = ''"),
    ("queued", "status = 'running'"),
    ("queued", "lease_token = 'token'"),
    ("queued", "lease_expires_at = updated_at"),
    ("queued", "finished_at = updated_at"),
    ("queued", "status = 'succeeded'"),
    ("queued", "retry_count = -1"),
    ("queued", "retry_count = max_retries + 1"),
    ("queued", "max_retries = -1"),
    ("queued", "name = NULL"),
    ("queued", "run_at = NULL"),
    ("running", "delayed = 1"),
    ("running", "lease_token = NULL"),
    ("running", "lease_expires_at = NULL"),
    ("running", "finished_at = updated_at"),
    ("running", "status = 'queued'"),
    ("running", "status = 'failed', finished_at = updated_at"),
    ("succeeded", "finished_at = NULL"),
    ("succeeded", "status = 'queued'"),
    ("succeeded", "delayed = 1"),
    ("succeeded", "lease_token = 'token'"),
]


async def job_in(house: House, status: str) -> Job:
    if status == "queued":
        return await house.create()
    job = await house.running()
    return await house.reports.report(report(job)) if status == "succeeded" else job


@pytest.mark.parametrize(("status", "change"), IMPOSSIBLE, ids=" ".join)
async def test_a_job_that_can_not_be_is_refused(
    store: Store, house: House, status: str, change: str
) -> None:
    job = await job_in(house, status)
    before = await everything(store)
    with pytest.raises(IntegrityError):
        await run(store, f"UPDATE jobs SET {change} WHERE id = :id", id=job.id)  # noqa: S608 - from above
    assert await everything(store) == before


@pytest.mark.parametrize("change", ["retry_count = max_retries", "delayed = 1", "delayed = 0"])
async def test_a_job_at_the_edge_of_what_can_be_is_taken(
    store: Store, house: House, change: str
) -> None:
    job = await house.create()
    await run(store, f"UPDATE jobs SET {change} WHERE id = :id", id=job.id)  # noqa: S608 - from above


async def test_one_request_can_not_hold_a_slot_twice(store: Store, house: House) -> None:
    first = await house.running(key=None)
    second = await house.running()
    slot = "UPDATE jobs SET request_id = 'r', request_slot = :slot WHERE id = :id"
    await run(store, slot, slot=0, id=first.id)
    with pytest.raises(IntegrityError):
        await run(store, slot, slot=0, id=second.id)
    await run(store, slot, slot=1, id=second.id)


async def test_there_is_one_watch(store: Store, house: House) -> None:
    await house.create()
    watch = """
        INSERT INTO watch (id, since, last_pass_at)
        SELECT CAST(:id AS integer), created_at, created_at FROM jobs
    """
    await run(store, watch, id=1)
    for other in (1, 2):
        with pytest.raises(IntegrityError):
            await run(store, watch, id=other)
