"""POST /jobs/bulk: many jobs, all or none, in order; one key for the whole call (section 6)."""

import asyncio
from typing import Any

import httpx
import pytest

from tests.api.calls import Api, Json, ok, places, problem, refused
from tests.api.conftest import MakeWorld
from tests.conftest import World


async def bulk(http: httpx.AsyncClient, jobs: list[Any], key: str | None = None) -> httpx.Response:
    headers = {} if key is None else {"Idempotency-Key": key}
    return await http.post("/jobs/bulk", json={"jobs": jobs}, headers=headers)


def wishes(number: int, **more: Any) -> list[Json]:
    return [{"name": "resize", "payload": {"n": n}, **more} for n in range(number)]


async def test_the_answer_has_each_job_in_the_order_of_the_call(api: Api) -> None:
    asked: list[Json] = [
        {"name": "a", "queue": "x", "payload": [1, None], "tags": ["t", "u"], "priority": 5},
        {"name": "b", "run_in_seconds": 10},
        {"name": "c", "max_retries": 0, "retry": {"base_seconds": 9}},
    ]
    jobs = ok(await bulk(api.http, asked), 201)["jobs"]
    assert [job["name"] for job in jobs] == ["a", "b", "c"]
    for one, job in zip(asked, jobs, strict=True):
        alone = await api.create(**one)
        changing = ("id", "run_at", "created_at", "updated_at")
        assert {k: v for k, v in job.items() if k not in changing} == {
            k: v for k, v in alone.items() if k not in changing
        }
        assert await api.get(job) == job
    assert await api.jobs(tag="u") != []
    assert await api.actions(jobs[2]) == ["create"]


async def test_a_thousand_are_taken_and_one_more_is_refused(api: Api, world: World) -> None:
    jobs = ok(await bulk(api.http, wishes(1_000)), 201)["jobs"]
    assert [job["payload"]["n"] for job in jobs] == list(range(1_000))
    assert sorted({job["id"] for job in jobs}) == [job["id"] for job in jobs]
    before = world.database.everything()
    assert places(refused(await bulk(api.http, wishes(1_001)))) == {"body.jobs"}
    assert places(refused(await bulk(api.http, []))) == {"body.jobs"}
    assert world.database.everything() == before


async def test_one_bad_item_refuses_all_and_is_named(api: Api, world: World) -> None:
    before = world.database.everything()
    jobs = wishes(5)
    jobs[3] = {"name": "x", "queue": "a/b", "unknown": 1}
    answer = refused(await bulk(api.http, jobs, "key"))
    assert places(answer) == {"body.jobs.3.queue", "body.jobs.3.unknown"}
    assert "body.jobs.3.queue" in answer["detail"]
    assert world.database.everything() == before


async def test_one_payload_that_is_too_large_refuses_all_and_is_named(
    make_world: MakeWorld,
) -> None:
    world = await make_world(max_payload_bytes=100)
    before = world.database.everything()
    answer = await bulk(world.http, [*wishes(2), {"name": "x", "payload": "x" * 200}])
    assert "jobs.2" in problem(answer, 413, "payload-too-large")["detail"]
    assert world.database.everything() == before


# The key of the call.


async def test_a_repeat_with_the_same_key_answers_the_same_jobs(api: Api, world: World) -> None:
    made = ok(await bulk(api.http, wishes(20), "k"), 201)["jobs"]
    before = world.database.everything()
    assert ok(await bulk(api.http, wishes(20), "k"))["jobs"] == made
    assert world.database.everything() == before
    await api.claim()
    again = ok(await bulk(api.http, wishes(20), "k"))["jobs"]
    assert [job["id"] for job in again] == [job["id"] for job in made]
    assert [job["status"] for job in again] == ["running"] + 19 * ["queued"]


@pytest.mark.parametrize("other", [wishes(19), wishes(20, priority=1), wishes(20)[::-1]])
async def test_another_body_with_the_key_is_refused(
    api: Api, world: World, other: list[Json]
) -> None:
    ok(await bulk(api.http, wishes(20), "k"), 201)
    before = world.database.everything()
    problem(await bulk(api.http, other, "k"), 422, "idempotency-mismatch")
    single = await api.http.post("/jobs", json=wishes(1)[0], headers={"Idempotency-Key": "k"})
    problem(single, 422, "idempotency-mismatch")
    assert world.database.everything() == before


async def test_calls_with_keys_side_by_side_each_get_their_own(api: Api) -> None:
    """Others take ids in between: on PostgreSQL the ids of one call need not be consecutive."""
    calls = [bulk(api.http, wishes(50, queue=f"q{n % 6}"), f"k{n % 6}") for n in range(18)]
    singles = [api.create(queue="single") for _ in range(50)]
    answers, _ = await asyncio.gather(asyncio.gather(*calls), asyncio.gather(*singles))
    assert sorted(answer.status_code for answer in answers) == 12 * [200] + 6 * [201]
    for n in range(6):
        same = [[job["id"] for job in answer.json()["jobs"]] for answer in answers[n::6]]
        assert same[0] == same[1] == same[2]
        assert {job["queue"] for job in answers[n].json()["jobs"]} == {f"q{n}"}
    everything = {job["id"] for answer in answers for job in answer.json()["jobs"]}
    assert len(everything) == 300


async def test_a_key_lives_as_long_as_the_last_of_its_jobs(make_world: MakeWorld) -> None:
    world = await make_world(retention_seconds=60)
    api = Api(world.http)
    asked = [{"name": "short"}, {"name": "long"}, {"name": "short"}]
    made = ok(await bulk(api.http, asked, "k"), 201)["jobs"]
    leases = [await api.claim() for _ in made]
    for lease in (leases[0], leases[2]):
        await api.report(lease, "succeeded")
    world.clock.move(50)
    await api.beat(leases[1])
    world.clock.move(20)
    await world.http.post("/jobs/reap")
    left = ok(await bulk(api.http, asked, "k"))["jobs"]
    assert [job["id"] for job in left] == [made[1]["id"]]
    await api.report(leases[1], "succeeded")
    world.clock.move(70)
    await world.http.post("/jobs/reap")
    again = ok(await bulk(api.http, asked, "k"), 201)["jobs"]
    assert {job["id"] for job in again}.isdisjoint(job["id"] for job in made)
