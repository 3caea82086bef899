"""POST /jobs and GET /jobs/{id}: what a job is, and that a create may be repeated (section 2)."""

import asyncio

import httpx

from tests.api.calls import JSON, Api, Json, ok, problem, refused
from tests.api.conftest import MakeWorld
from tests.conftest import World

NOW = "2026-11-18T11:06:40.000000Z"


async def keyed(world: World, key: str | bytes, body: str = '{"name": "a"}') -> httpx.Response:
    headers: list[tuple[str, str | bytes]] = [*JSON.items(), ("Idempotency-Key", key)]
    return await world.http.post("/jobs", content=body, headers=headers)  # pyright: ignore[reportArgumentType] - bytes are what a header is


async def test_a_job_has_these_defaults(world: World) -> None:
    answer = await world.http.post("/jobs", json={"name": "resize"})
    job = ok(answer, 201)
    assert answer.headers["location"] == f"/jobs/{job['id']}"
    assert job == {
        "id": job["id"],
        "queue": "default",
        "name": "resize",
        "payload": None,
        "priority": 0,
        "status": "queued",
        "attempt": 0,
        "retry_count": 0,
        "max_retries": 3,
        "release_count": 0,
        "run_at": NOW,
        "lease_seconds": None,
        "timeout_seconds": None,
        "retry": {"base_seconds": 1, "factor": 2, "max_seconds": 3600, "jitter": 0.2},
        "locked_by": None,
        "locked_at": None,
        "last_heartbeat_at": None,
        "lease_expires_at": None,
        "cancel_requested": False,
        "progress": None,
        "checkpoint": None,
        "result": None,
        "error": None,
        "tags": [],
        "created_at": NOW,
        "updated_at": NOW,
        "finished_at": None,
    }
    assert type(job["id"]) is int


async def test_a_number_is_written_the_same_in_every_answer(api: Api) -> None:
    body = b'{"name": "a", "lease_seconds": 9, "timeout_seconds": 60, "retry": {"jitter": 0}}'
    made = (await api.http.post("/jobs", content=body, headers=JSON)).text
    for written in (
        '"lease_seconds":9.0,"timeout_seconds":60.0',
        '"retry":{"base_seconds":1.0,"factor":2.0,"max_seconds":3600.0,"jitter":0.0}',
    ):
        for answer in (
            made,
            (await api.http.get("/jobs/1")).text,
            (await api.http.get("/jobs")).text,
        ):
            assert written in answer


async def test_a_job_keeps_what_it_was_given(api: Api) -> None:
    given: Json = {
        "name": "bill",
        "queue": "money",
        "payload": {"b": [1, 2.5], "a": None},
        "priority": -7,
        "max_retries": 0,
        "lease_seconds": 90,
        "timeout_seconds": 600.5,
        "run_at": "2031-01-01T00:00:00.000000Z",
        "tags": ["monthly", "é", "monthly"],
        "retry": {"base_seconds": 0, "factor": 1, "max_seconds": 60, "jitter": 0},
    }
    job = await api.create(**given)
    assert {name: job[name] for name in given} == given
    assert await api.get(job) == job


async def test_a_policy_given_in_part_keeps_the_other_defaults(api: Api) -> None:
    job = await api.create(retry={"factor": 3})
    assert job["retry"] == {"base_seconds": 1, "factor": 3, "max_seconds": 3600, "jitter": 0.2}


async def test_a_job_may_start_later_by_time_or_by_delay(api: Api, world: World) -> None:
    by_delay = await api.create(run_in_seconds=1.5)
    assert by_delay["run_at"] == "2026-11-18T11:06:41.500000Z"
    assert by_delay["status"] == "queued"
    assert await api.nothing_to_claim()
    await world.pass_time(1.5)
    assert (await api.claim())["id"] == by_delay["id"]

    past = await api.create(run_at="2020-01-01T00:00:00Z")
    assert past["run_at"] == "2020-01-01T00:00:00.000000Z"
    assert (await api.claim())["id"] == past["id"]


async def test_a_job_has_one_start(world: World) -> None:
    before = world.database.everything()
    both = {"name": "a", "run_at": NOW, "run_in_seconds": 1}
    refused(await world.http.post("/jobs", json=both))
    assert world.database.everything() == before
    ok(await world.http.post("/jobs", json={**both, "run_at": None}), 201)


async def test_a_name_is_required(world: World) -> None:
    body = refused(await world.http.post("/jobs", json={"queue": "a"}))
    assert [fault["where"] for fault in body["errors"]] == ["body.name"]


async def test_every_fault_of_a_body_is_named(world: World) -> None:
    body = {"priority": 1000, "tags": [""], "retry": {"factor": "x"}, "extra": 1}
    found = refused(await world.http.post("/jobs", json=body))
    assert {fault["where"] for fault in found["errors"]} == {
        "body.name", "body.priority", "body.tags.0", "body.retry.factor", "body.extra",
    }  # fmt: skip


async def test_ids_grow_and_are_not_used_again(make_world: MakeWorld) -> None:
    world = await make_world(retention_seconds=10)
    api = Api(world.http)
    first, last = await api.create(), await api.create()
    assert last["id"] > first["id"]
    await api.cancel(last)
    done = await world.pass_time(12)
    assert done.pruned == 1
    problem(await api.http.get(f"/jobs/{last['id']}"), 404, "job-not-found")
    assert (await api.create())["id"] > last["id"]


async def test_a_job_that_is_not_there_is_404(world: World) -> None:
    for job_id in ("1", "0", str(2**63 - 1)):
        for path in (f"/jobs/{job_id}", f"/jobs/{job_id}/events"):
            problem(await world.http.get(path), 404, "job-not-found")


# Idempotency-Key


async def test_the_same_key_with_the_same_body_answers_the_job_as_it_stands(
    world: World, api: Api
) -> None:
    first = await keyed(world, "k")
    job = ok(first, 201)
    before = world.database.everything()
    again = await keyed(world, "k")
    assert ok(again) == job
    assert again.headers["location"] == first.headers["location"]
    assert world.database.everything() == before
    lease = await api.claim()
    await api.report(lease, "succeeded", result=1)
    assert ok(await keyed(world, "k")) == await api.get(job)
    assert len(await api.jobs()) == 1


async def test_bodies_are_compared_with_keys_sorted_and_without_white_space(world: World) -> None:
    body = '{"name": "a", "payload": {"x": [1, {"b": 1, "a": "é"}], "w": null}, "priority": 1}'
    job = ok(await keyed(world, "k", body), 201)
    for same in (
        body,
        body.replace(" ", ""),
        '\n{ "priority":1,\t"payload": {"w":null, "x":[1,{"a":"é","b":1}]},"name":"a" }\r\n',
        body.replace("é", "\\u00e9"),
    ):
        assert ok(await keyed(world, "k", same))["id"] == job["id"], same


async def test_another_body_under_a_key_is_a_mismatch(world: World, api: Api) -> None:
    ok(await keyed(world, "k", '{"name": "a", "payload": [1, 2]}'), 201)
    before = world.database.everything()
    for other in (
        '{"name": "a", "payload": [1.0, 2]}',
        '{"name": "a", "payload": [2, 1]}',
        '{"name": "a", "payload": [1, "2"]}',
        '{"name": "a", "payload": [1, 2, null]}',
        '{"name": "A", "payload": [1, 2]}',
        '{"name": "a", "payload": [1, 2], "queue": "default"}',  # as sent, before defaults
        '{"name": "a", "payload": [1, 2], "priority": 0}',
    ):
        problem(await keyed(world, "k", other), 422, "idempotency-mismatch")
    assert world.database.everything() == before
    assert len(await api.jobs()) == 1


async def test_a_body_that_is_not_valid_uses_no_key(world: World) -> None:
    refused(await keyed(world, "k", '{"name": ""}'))
    ok(await keyed(world, "k", '{"name": "a"}'), 201)
    refused(await keyed(world, "k", '{"name": ""}'))


async def test_20_copies_at_once_make_one_job(world: World, api: Api) -> None:
    answers = await asyncio.gather(*(keyed(world, "k") for _ in range(20)))
    assert sorted(answer.status_code for answer in answers) == [200] * 19 + [201]
    assert len({answer.json()["id"] for answer in answers}) == 1
    (job,) = await api.jobs()
    assert await api.actions(job) == ["create"]


async def test_different_bodies_at_once_under_one_key_make_one_job(world: World, api: Api) -> None:
    bodies = [f'{{"name": "a", "payload": {n}}}' for n in range(10)]
    answers = await asyncio.gather(*(keyed(world, "k", body) for body in bodies))
    taken = [answer for answer in answers if answer.status_code == 201]
    assert len(taken) == len(await api.jobs()) == 1
    for answer in answers:
        if answer is not taken[0]:
            problem(answer, 422, "idempotency-mismatch")


async def test_keys_are_apart_and_creates_without_one_too(world: World, api: Api) -> None:
    for key in ("k", "K", "kk"):
        ok(await keyed(world, key), 201)
    await asyncio.gather(*(api.create() for _ in range(5)))
    assert len(await api.jobs()) == 8


async def test_a_key_has_1_to_200_bytes(world: World, api: Api) -> None:
    for key in (b"k" * 200, "é".encode() * 100, b"a b;c,\"d'"):
        ok(await keyed(world, key), 201)
        ok(await keyed(world, key))
    before = world.database.everything()
    for key in (b"", b"k" * 201, "é".encode() * 101):
        refused(await keyed(world, key))
    assert world.database.everything() == before
    assert len(await api.jobs()) == 3


async def test_a_key_lives_as_long_as_its_job(make_world: MakeWorld) -> None:
    world = await make_world(retention_seconds=100)
    api = Api(world.http)
    job = ok(await keyed(world, "k"), 201)
    await world.pass_time(400)
    assert ok(await keyed(world, "k"))["id"] == job["id"]  # however long it waits
    await api.cancel(job)
    await world.pass_time(50)
    assert ok(await keyed(world, "k"))["id"] == job["id"]
    await world.pass_time(60)
    other = ok(await keyed(world, "k", '{"name": "b"}'), 201)
    assert other["id"] != job["id"]
