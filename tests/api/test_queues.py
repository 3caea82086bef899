"""/queues: what waits in each, and the pause (section 10)."""

from tests.api.calls import Api, ok, refused
from tests.conftest import World


async def test_no_queue_at_first(world: World) -> None:
    assert ok(await world.http.get("/queues")) == {"queues": []}


async def test_each_queue_shows_what_waits_and_runs(api: Api, world: World) -> None:
    for _ in range(3):
        await api.create(queue="b")
    await api.create(queue="b", run_in_seconds=10)
    await api.create(queue="a", run_in_seconds=10)
    await api.claim(queues=["b"])
    await api.report(await api.claim(queues=["b"]), "succeeded")
    shown = ok(await world.http.get("/queues"))["queues"]
    assert shown == [
        {"name": "a", "paused": False, "queued": 0, "delayed": 1, "running": 0},
        {"name": "b", "paused": False, "queued": 1, "delayed": 1, "running": 1},
    ]
    await world.pass_time(10)
    shown = ok(await world.http.get("/queues"))["queues"]
    assert [(queue["queued"], queue["delayed"]) for queue in shown] == [(1, 0), (2, 0)]


async def test_a_pause_answers_the_queue(api: Api) -> None:
    await api.create(queue="a")
    shown = {"name": "a", "paused": True, "queued": 1, "delayed": 0, "running": 0}
    assert await api.pause("a") == shown
    assert await api.pause("a") == shown
    assert ok(await api.http.get("/queues"))["queues"] == [shown]
    assert await api.pause("a", paused=False) == {**shown, "paused": False}


async def test_no_claim_takes_from_a_paused_queue(api: Api) -> None:
    lease = await api.started(queue="a")
    await api.create(queue="a")
    await api.pause("a")
    assert await api.nothing_to_claim(queues=["a"])
    await api.beat(lease)  # what runs goes on
    await api.report(lease, "failed", retry_in_seconds=0)
    assert await api.nothing_to_claim(queues=["a"])
    await api.pause("a", paused=False)
    await api.claim(queues=["a"])


async def test_a_queue_may_be_paused_before_its_first_job(api: Api) -> None:
    await api.pause("later")
    await api.create(queue="later")
    assert await api.nothing_to_claim(queues=["later"])


async def test_a_name_in_the_path_is_any_queues(api: Api) -> None:
    for name, path in (("a b", "a%20b"), ("é", "%C3%A9"), ("50%", "50%25"), ("a?b", "a%3Fb")):
        await api.create(queue=name)
        assert (await api.pause(path))["name"] == name
        assert await api.nothing_to_claim(queues=[name])


async def test_a_pause_is_true_or_false(world: World) -> None:
    for body in ({}, {"paused": "true"}, {"paused": 1}, {"paused": None}, {"paused": [True]}):
        refused(await world.http.patch("/queues/a", json=body))
    refused(await world.http.patch("/queues/a"))
    assert ok(await world.http.get("/queues")) == {"queues": []}
