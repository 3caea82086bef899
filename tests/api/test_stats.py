"""GET /stats: what waits now, what was ever done, and the last minute (section 10)."""

from tests.api.calls import Api, Json, ok
from tests.conftest import World

NOTHING = dict.fromkeys(
    ("created", "succeeded", "failed", "exhausted", "cancelled", "retried", "lost"), 0
)


async def stats(world: World) -> Json:
    return ok(await world.http.get("/stats"))


async def test_an_empty_store(world: World) -> None:
    assert await stats(world) == {
        "now": "2026-11-18T11:06:40.000000Z",
        "queues": {},
        "totals": NOTHING,
        "last_minute": {"created": 0, "finished": 0},
    }


async def test_every_number(api: Api, world: World) -> None:
    async def run(status: str, **fields: object) -> None:
        lease = await api.claim(queues=["a"])
        world.clock.move(1)
        await api.report(lease, status, **fields)

    for _ in range(6):
        await api.create(queue="a", retry={"base_seconds": 0}, lease_seconds=10, max_retries=1)
    await run("succeeded")
    await run("failed", retryable=False)
    await run("failed")  # queued again, behind the others
    await run("failed")
    await api.cancel((await api.jobs(status="queued", order="newest"))[0])
    before = await stats(world)
    assert before["queues"] == {
        "a": {"queued": 3, "delayed": 0, "running": 0, "oldest_queued_seconds": 4}
    }
    assert before["totals"] == {
        **NOTHING, "created": 6, "succeeded": 1, "failed": 1, "cancelled": 1, "retried": 2,
    }  # fmt: skip

    await api.create(queue="b", run_in_seconds=100)
    for _ in range(3):
        await api.claim(queues=["a"])
    await world.pass_time(14)  # three leases are lost: two after their last retry, one requeued
    after = await stats(world)
    assert after["queues"]["a"] | {"oldest_queued_seconds": None} == {
        "queued": 1, "delayed": 0, "running": 0, "oldest_queued_seconds": None,
    }  # fmt: skip
    assert after["queues"]["b"] == {
        "queued": 0, "delayed": 1, "running": 0, "oldest_queued_seconds": None,
    }  # fmt: skip
    assert after["totals"] == {
        **NOTHING, "created": 7, "succeeded": 1, "failed": 1, "cancelled": 1, "retried": 3,
        "exhausted": 2, "lost": 3,
    }  # fmt: skip
    assert after["last_minute"] == {"created": 7, "finished": 5}


async def test_oldest_queued_is_now_minus_the_smallest_run_at(api: Api, world: World) -> None:
    await api.create(priority=5)
    world.clock.move(10)
    await api.create(run_at="2026-11-18T11:05:00Z", priority=-5)
    await api.create(run_in_seconds=100)
    assert (await stats(world))["queues"]["default"] == {
        "queued": 2, "delayed": 1, "running": 0, "oldest_queued_seconds": 110,
    }  # fmt: skip
    await api.claim()
    await api.claim()
    assert (await stats(world))["queues"]["default"]["oldest_queued_seconds"] is None


async def test_the_last_minute_is_the_last_minute(api: Api, world: World) -> None:
    await api.create()
    await api.report(await api.claim(), "succeeded")
    await world.pass_time(59)
    await api.create()
    assert (await stats(world))["last_minute"] == {"created": 2, "finished": 1}
    await world.pass_time(2)
    assert (await stats(world))["last_minute"] == {"created": 1, "finished": 0}
    await world.pass_time(60)
    assert (await stats(world))["last_minute"] == {"created": 0, "finished": 0}


async def test_the_totals_stay_when_counts_are_folded_and_jobs_are_pruned(
    api: Api, world: World
) -> None:
    for _ in range(5):
        await api.create()
    for _ in range(3):
        await api.report(await api.claim(), "succeeded")
    before = await stats(world)
    await world.pass_time(400)
    assert world.database.value("SELECT count(*) FROM stats") > 0
    after = await stats(world)
    assert after["totals"] == before["totals"]
    assert after["queues"]["default"]["queued"] == 2


async def test_retries_and_again_are_counted_as_they_end(api: Api, world: World) -> None:
    job = await api.create()
    for _ in range(2):
        await api.report(await api.claim(), "succeeded")
        await api.retry(job, again=True)
    totals = (await stats(world))["totals"]
    # An operator's retry spends none.
    assert totals == {**NOTHING, "created": 1, "succeeded": 2}


async def test_now_is_the_stores_time(world: World) -> None:
    world.clock.move(0.5)
    assert (await stats(world))["now"] == "2026-11-18T11:06:40.500000Z"
