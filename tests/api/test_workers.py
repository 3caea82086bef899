"""GET /workers: who was seen in the last day, and what each runs (section 10)."""

from tests.api.calls import NOBODY, Api, ok, refused
from tests.api.conftest import MakeWorld
from tests.conftest import World


async def test_nobody_at_first(world: World) -> None:
    assert ok(await world.http.get("/workers")) == {"workers": []}


async def test_a_worker_is_seen_when_it_calls(api: Api, world: World) -> None:
    lease = await api.started()
    await api.create()
    world.clock.move(1)
    await api.nothing_to_claim("idle", queues=["nowhere"])
    world.clock.move(1)
    await api.claim("busy")
    world.clock.move(1)
    await api.beat({**lease, "locked_by": "beating"})
    assert ok(await world.http.get("/workers"))["workers"] == [
        {
            "worker_id": name,
            "last_seen_at": f"2026-11-18T11:06:{second}.000000Z",
            "running": running,
            "about": None,
        }
        for name, second, running in (
            ("beating", 43, 0),
            ("busy", 42, 1),
            ("idle", 41, 0),
            ("w", 40, 1),
        )
    ]


async def test_a_refused_call_is_a_sign_of_life_an_invalid_one_is_not(api: Api) -> None:
    lease = await api.started()
    await api.try_beat({**lease, "locked_by": "stale", "lease_token": NOBODY})
    await api.try_report({**lease, "locked_by": "late", "lease_token": NOBODY}, "succeeded")
    refused(await api.try_claim("a/b"))
    refused(await api.try_claim("wrong", limit=2))
    seen = {worker["worker_id"] for worker in ok(await api.http.get("/workers"))["workers"]}
    assert seen == {"w", "stale", "late"}


async def test_sightings_are_kept_for_a_day(api: Api, world: World) -> None:
    await api.nothing_to_claim("early")
    await world.services.workers.write_sightings_once()
    world.clock.move(23 * 3600)
    await api.nothing_to_claim("late")
    await world.services.workers.write_sightings_once()
    seen = [worker["worker_id"] for worker in ok(await world.http.get("/workers"))["workers"]]
    assert seen == ["late", "early"]
    world.clock.move(2 * 3600)
    seen = [worker["worker_id"] for worker in ok(await world.http.get("/workers"))["workers"]]
    assert seen == ["late"]


async def test_what_a_worker_runs_is_counted_now(make_world: MakeWorld) -> None:
    world = await make_world()
    api = Api(world.http)
    leases = [await api.started() for _ in range(3)]
    (worker,) = ok(await world.http.get("/workers"))["workers"]
    assert worker["running"] == 3
    await api.report(leases[0], "succeeded")
    await api.cancel(leases[1], force=True)
    (worker,) = ok(await world.http.get("/workers"))["workers"]
    assert worker["running"] == 1
