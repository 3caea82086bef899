"""Promise 4: a job runs again only after its lease expired, was reported or handed back, or an
operator took it; and then it does run again.
"""

import asyncio
from collections.abc import Awaitable, Callable

import httpx
import pytest

from tests.databases import Database
from tests.promises.calls import Job, beat, claim, claimed, create, get, ok, operate, report
from tests.promises.records import actions, micros, stored_jobs, trail_of, trails
from tests.promises.servers import real_seconds, until
from tests.promises.workers import Team, hire

pytestmark = [
    pytest.mark.process,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.timeout(120),
]


async def nobody_gets_it(http: httpx.AsyncClient, queue: str) -> None:
    claims = (claim(http, f"thief-{n}", queues=[queue]) for n in range(10))
    assert await asyncio.gather(*claims) == [None] * 10


async def falls_silent(http: httpx.AsyncClient, lease: Job) -> None:
    """Does nothing any more."""


async def fails(http: httpx.AsyncClient, lease: Job) -> None:
    ok(await report(http, lease, "failed", retry_in_seconds=0))


async def hands_back(http: httpx.AsyncClient, lease: Job) -> None:
    ok(await report(http, lease, "queued"))


async def is_taken_by_force(http: httpx.AsyncClient, lease: Job) -> None:
    await operate(http, lease["id"], "cancel?force=true")
    await operate(http, lease["id"], "retry")


async def is_repeated(http: httpx.AsyncClient, lease: Job) -> None:
    ok(await report(http, lease, "succeeded"))
    await nobody_gets_it(http, lease["queue"])
    await operate(http, lease["id"], "retry?again=true")


@pytest.mark.parametrize(
    ("worker", "story"),
    [
        (falls_silent, ["lose"]),
        (fails, ["fail"]),
        (hands_back, ["release"]),
        (is_taken_by_force, ["cancel", "retry"]),
        (is_repeated, ["succeed", "retry"]),
    ],
    ids=lambda it: it.__name__ if callable(it) else "",
)
async def test_a_job_runs_again_for_this_reason_and_not_before(
    http: httpx.AsyncClient,
    database: Database,
    queue: str,
    worker: Callable[[httpx.AsyncClient, Job], Awaitable[None]],
    story: list[str],
) -> None:
    created = await create(http, queue=queue, retry={"base_seconds": 0})
    lease_seconds = 2 if worker is falls_silent else 60
    first = await claimed(http, "first", queues=[queue], lease_seconds=lease_seconds)
    expiry = ok(await beat(http, first))["lease_expires_at"]
    await nobody_gets_it(http, queue)
    await worker(http, first)
    second = await claimed(http, "second", queues=[queue])
    assert second["id"] == created["id"]
    assert second["attempt"] == 2
    assert second["lease_token"] != first["lease_token"]
    trail = trail_of(database, created["id"])
    assert actions(trail) == ["create", "claim", *story, "claim"]
    if story == ["lose"]:
        assert (trail[2].actor, trail[2].reason) == ("reaper", "lease-expired")
        assert trail[2].at >= micros(expiry)


async def test_while_its_worker_beats_nobody_else_gets_it(
    http: httpx.AsyncClient, database: Database, queue: str
) -> None:
    job_id = (await create(http, queue=queue))["id"]
    lease = await claimed(http, queues=[queue], lease_seconds=2)
    beats = 0
    while (await get(http, job_id))["last_heartbeat_at"] < lease["lease_expires_at"]:
        await nobody_gets_it(http, queue)
        await real_seconds(0.2)
        ok(await beat(http, lease))
        beats += 1
    assert beats > 1
    await nobody_gets_it(http, queue)
    ok(await report(http, lease, "succeeded"))
    await nobody_gets_it(http, queue)
    assert actions(trail_of(database, job_id)) == ["create", "claim", "succeed"]


async def test_a_lease_is_never_lost_before_the_time_that_its_holder_was_told(
    http: httpx.AsyncClient, database: Database, queue: str
) -> None:
    wishes = {"queue": queue, "max_retries": 50, "retry": {"base_seconds": 0}}
    jobs = await asyncio.gather(*(create(http, **wishes) for _ in range(25)))
    team = Team(http, queue, lease_seconds=1, seed=4)

    async def all_done() -> bool:
        stored = stored_jobs(database)
        return all(stored[job["id"]]["finished_at"] for job in jobs)

    async with asyncio.TaskGroup() as group:
        group.create_task(hire(team, 6))
        await until(all_done, 60)
        team.done = True
    found = trails(database)
    lost = [event for job in jobs for event in found[job["id"]] if event.action == "lose"]
    told = {held.token: micros(held.until) for held in team.leases}
    assert lost
    assert [event for event in lost if event.at < told[event.lease_token or ""]] == []
