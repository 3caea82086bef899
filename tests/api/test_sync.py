"""POST /workers/{worker_id}/sync: a busy worker's one call, each item answered by itself (6)."""

import asyncio
from typing import Any, cast

import httpx
import pytest

from tests.api.calls import NOBODY, Api, Json, ok, places, problem, refused
from tests.api.conftest import MakeWorld
from tests.conftest import World


async def try_sync(api: Api, worker_id: str = "w", **parts: Any) -> httpx.Response:
    return await api.http.post(f"/workers/{worker_id}/sync", json=parts)


async def sync(api: Api, worker_id: str = "w", **parts: Any) -> Json:
    return ok(await try_sync(api, worker_id, **parts))


def item(lease: Json, **fields: Any) -> Json:
    return {"id": lease["id"], "lease_token": lease["lease_token"], **fields}


async def leases(api: Api, number: int, **claim: Any) -> list[Json]:
    for n in range(number):
        await api.create(payload=n)
    jobs = (await sync(api, claim={"limit": number, **claim}))["jobs"]
    assert len(jobs) == number
    return jobs


# The claim part.


async def test_a_claim_brings_up_to_its_limit_best_first(api: Api) -> None:
    made = [await api.create(priority=n % 3, queue="ab"[n % 2]) for n in range(10)]
    best = sorted(made, key=lambda job: (-job["priority"], job["id"]))
    answer = await sync(api, claim={"queues": ["a", "b"], "limit": 6, "lease_seconds": 30})
    assert (answer["reports"], answer["heartbeats"]) == ([], [])
    assert [job["id"] for job in answer["jobs"]] == [job["id"] for job in best[:6]]
    for job in answer["jobs"]:
        shown = {name: value for name, value in job.items() if name != "lease_token"}
        assert shown == await api.get(job)
        assert (job["locked_by"], job["attempt"]) == ("w", 1)
        assert job["lease_expires_at"] == "2026-11-18T11:07:10.000000Z"
    assert len({job["lease_token"] for job in answer["jobs"]}) == 6
    rest = await sync(api, claim={"queues": ["a", "b"], "limit": 6})
    assert [job["id"] for job in rest["jobs"]] == [job["id"] for job in best[6:]]
    assert (await sync(api, claim={"queues": ["a", "b"], "limit": 6}))["jobs"] == []


async def test_a_claim_repeated_by_its_request_id_gives_what_is_left_of_it(
    api: Api, world: World
) -> None:
    for _ in range(6):
        await api.create()
    part = {"limit": 4, "request_id": "r"}
    first = (await sync(api, claim=part))["jobs"]
    world.clock.move(30)
    again = (await sync(api, claim=part))["jobs"]
    assert [item(job) for job in again] == [item(job) for job in first]
    assert {job["lease_expires_at"] for job in again} == {"2026-11-18T11:08:10.000000Z"}
    await api.report(first[1], "succeeded")
    left = (await sync(api, claim=part))["jobs"]
    assert [item(job) for job in left] == [item(first[n]) for n in (0, 2, 3)]
    assert len((await sync(api, "other", claim=part))["jobs"]) == 2
    for job in left:
        await api.report(job, "succeeded")
    assert (await sync(api, claim=part))["jobs"] == []


async def test_copies_of_a_claim_at_the_same_time_are_one(api: Api) -> None:
    for _ in range(10):
        await api.create()
    part = {"limit": 3, "request_id": "r"}
    answers = await asyncio.gather(*(sync(api, claim=part) for _ in range(4)))
    assert len({str([item(job) for job in answer["jobs"]]) for answer in answers}) == 1
    assert len(answers[0]["jobs"]) == 3


async def test_many_syncs_at_once_share_the_jobs(api: Api) -> None:
    made = [await api.create() for _ in range(50)]
    answers = await asyncio.gather(*(sync(api, f"w{n}", claim={"limit": 20}) for n in range(4)))
    taken = [job for answer in answers for job in answer["jobs"]]
    assert sorted(job["id"] for job in taken) == [job["id"] for job in made]
    assert sum(len(answer["jobs"]) == 20 for answer in answers) >= 2


async def test_a_claim_of_large_jobs_brings_no_more_than_it_can_carry(
    make_world: MakeWorld,
) -> None:
    world = await make_world(max_payload_bytes=4 * 1024 * 1024)
    api = Api(world.http)
    for _ in range(5):
        await api.create(payload="x" * 3_000_000)
    assert len((await sync(api, claim={"limit": 5}))["jobs"]) == 3
    assert len((await sync(api, claim={"limit": 5}))["jobs"]) == 2


# Reports and heartbeats.


async def test_each_item_gets_its_own_word_and_the_rest_are_done(api: Api) -> None:
    """Of 300 reports: a stale token, a foreign job, a repeated one, an over-long string, ..."""
    held = await leases(api, 300)
    await api.cancel(held[4], force=True)
    bad: dict[int, Json] = {
        0: item(held[0], status="succeeded", lease_token=NOBODY),
        1: {"id": 10**6, "lease_token": NOBODY, "status": "succeeded"},
        2: item(held[2], status="failed", run_in_seconds=1),
        3: item(held[3], status="succeeded", lease_token="x" * 201),
        4: item(held[4], status="succeeded"),
        5: item(held[5], status="nonsense"),
        6: item(held[6], status="cancelled"),
        7: {"status": "succeeded"},
    }
    reports: list[Any] = [
        bad.get(n, item(job, status="succeeded", result=n)) for n, job in enumerate(held)
    ]
    reports += [reports[100], "no object"]
    answers = (await sync(api, reports=reports))["reports"]
    codes = {n: (a["id"], a["problem"]["code"]) for n, a in enumerate(answers) if "problem" in a}
    assert codes == {
        0: (held[0]["id"], "lease-lost"),
        1: (10**6, "job-not-found"),
        2: (held[2]["id"], "validation-error"),
        3: (held[3]["id"], "validation-error"),
        4: (held[4]["id"], "lease-lost"),
        5: (held[5]["id"], "validation-error"),
        6: (held[6]["id"], "invalid-transition"),
        7: (None, "validation-error"),
        301: (None, "validation-error"),
    }
    good = [n for n in range(301) if n not in codes]
    assert [answers[n] for n in good[:-1]] == [
        {"id": held[n]["id"], "status": "succeeded"} for n in good[:-1]
    ]
    assert answers[300] == {"id": held[100]["id"], "status": "succeeded"}
    for n in (8, 100, 101, 299):
        assert (await api.get(held[n]))["result"] == n
        assert (await api.actions(held[n])) == ["create", "claim", "succeed"]
    for n in (0, 2, 3, 5, 6):
        assert (await api.get(held[n]))["status"] == "running"


async def test_an_items_problem_is_that_of_the_single_call(api: Api) -> None:
    (lease,) = await leases(api, 1)
    stale = {**lease, "lease_token": NOBODY}
    answer = await sync(
        api,
        reports=[item(stale, status="succeeded")],
        heartbeats=[item(stale), {"id": 10**6, "lease_token": "x"}],
    )
    single = await api.try_report(stale, "succeeded")
    assert answer["reports"] == [{"id": lease["id"], "problem": problem(single, 409, "lease-lost")}]
    beat = problem(await api.try_beat(stale), 409, "lease-lost")
    assert answer["heartbeats"][0] == {"id": lease["id"], "problem": beat}
    assert answer["heartbeats"][1]["problem"]["code"] == "job-not-found"


async def test_what_is_too_large_is_that_items_problem(make_world: MakeWorld) -> None:
    world = await make_world(max_result_bytes=100, max_checkpoint_bytes=100)
    api = Api(world.http)
    one, other = await leases(api, 2)
    answer = await sync(
        api,
        reports=[item(one, status="succeeded", result="x" * 200)],
        heartbeats=[item(one, checkpoint="x" * 200), item(other)],
    )
    assert answer["reports"][0]["problem"]["code"] == "payload-too-large"
    assert answer["heartbeats"][0]["problem"]["code"] == "payload-too-large"
    assert answer["heartbeats"][1]["cancel_requested"] is False


async def test_where_an_item_is_wrong_is_said_from_the_body_on(api: Api) -> None:
    (lease,) = await leases(api, 1)
    answer = await sync(
        api,
        reports=[item(lease, status="failed"), item(lease, status="queued", result=1)],
        heartbeats=[item(lease, more=1)],
    )
    assert places(answer["reports"][1]["problem"]) == {"body.reports.1"}
    assert places(answer["heartbeats"][0]["problem"]) == {"body.heartbeats.0.more"}


async def test_heartbeats_extend_leases_and_bring_cancel_requests(api: Api, world: World) -> None:
    held = await leases(api, 3, lease_seconds=20)
    await api.cancel(held[1])
    world.clock.move(10)
    beats = [item(job, progress=job["payload"], checkpoint=[1]) for job in held]
    answers = (await sync(api, heartbeats=beats))["heartbeats"]
    assert answers == [
        {
            "id": job["id"],
            "lease_expires_at": "2026-11-18T11:07:10.000000Z",
            "cancel_requested": job is held[1],
        }
        for job in held
    ]
    assert [(await api.get(job))["progress"] for job in held] == [0, 1, 2]
    assert (await sync(api, reports=[item(held[1], status="cancelled")]))["reports"] == [
        {"id": held[1]["id"], "status": "cancelled"}
    ]


async def test_a_heartbeat_and_the_report_of_one_job_may_be_in_one_call(api: Api) -> None:
    held = await leases(api, 20)
    answer = await sync(
        api,
        heartbeats=[item(job, checkpoint=job["payload"]) for job in held],
        reports=[item(job, status="failed") for job in held],
    )
    assert all("problem" not in one for one in (*answer["heartbeats"], *answer["reports"]))
    assert {one["status"] for one in answer["reports"]} == {"queued"}
    assert (await api.get(held[7]))["checkpoint"] == 7


async def test_one_call_reports_heartbeats_and_claims(api: Api) -> None:
    one, other = await leases(api, 2)
    new = await api.create(payload="new")
    answer = await sync(
        api,
        reports=[item(one, status="succeeded")],
        heartbeats=[item(other)],
        claim={"limit": 5, "wait_seconds": 60},  # counts only where there is nothing else
    )
    assert answer["reports"][0]["status"] == "succeeded"
    assert answer["heartbeats"][0]["id"] == other["id"]
    assert [job["id"] for job in answer["jobs"]] == [new["id"]]
    empty = await sync(api, heartbeats=[item(other)], claim={"limit": 5, "wait_seconds": 60})
    assert empty["jobs"] == []


async def test_a_call_repeated_as_it_is_has_one_effect(api: Api, world: World) -> None:
    one, other = await leases(api, 2)
    for _ in range(3):
        await api.create()
    parts: Json = {
        "reports": [item(one, status="failed", retry_in_seconds=5)],
        "heartbeats": [item(other, progress=1)],
        "claim": {"limit": 2, "request_id": "r"},
    }
    first = await sync(api, **parts)
    before = world.database.everything()
    assert await sync(api, **parts) == first
    assert world.database.everything() == before


# The envelope.


@pytest.mark.parametrize(
    ("body", "where"),
    [
        ({"reports": 5}, "body.reports"),
        ({"reports": [None] * 1_001}, "body.reports"),
        ({"heartbeats": [None] * 1_001}, "body.heartbeats"),
        ({"more": 1}, "body.more"),
        ({"claim": {}}, "body.claim.limit"),
        ({"claim": {"limit": 0}}, "body.claim.limit"),
        ({"claim": {"limit": 1_001}}, "body.claim.limit"),
        ({"claim": {"limit": 1, "queues": []}}, "body.claim.queues"),
        ({"claim": {"limit": 1, "worker_id": "w"}}, "body.claim.worker_id"),
        ({"about": {"color": "red"}}, "body.about.color"),
        ([], "body"),
    ],
)
async def test_what_breaks_the_envelope_refuses_the_whole_call(
    api: Api, world: World, body: Any, where: str
) -> None:
    (lease,) = await leases(api, 1)
    if isinstance(body, dict):
        good: Json = {"reports": [item(lease, status="succeeded")]}
        body = good | cast("Json", body)
    before = world.database.everything()
    answer = await api.http.post("/workers/w/sync", json=body)
    assert places(refused(answer)) == {where}
    assert world.database.everything() == before


@pytest.mark.parametrize("worker_id", ["x" * 201, "%0a", ".."])
async def test_the_worker_in_the_path_is_checked(api: Api, worker_id: str) -> None:
    answer = await api.http.post(f"http://127.0.0.1/workers/{worker_id}/sync", json={})
    assert answer.status_code in (404, 422)


async def test_an_empty_call_is_a_sign_of_life(api: Api) -> None:
    assert await sync(api, "idle") == {"reports": [], "heartbeats": [], "jobs": []}
    (worker,) = ok(await api.http.get("/workers"))["workers"]
    assert (worker["worker_id"], worker["about"]) == ("idle", None)


async def test_what_a_worker_says_of_itself_is_shown_and_kept(api: Api, world: World) -> None:
    about = {"host": "h", "pid": 7, "sdk": "python 0.1", "code": "abc"}

    async def shown() -> Any:
        (worker,) = ok(await api.http.get("/workers"))["workers"]
        return worker["about"]

    await sync(api, about=about)
    assert await shown() == about
    await world.services.workers.write_sightings_once()
    await sync(api)
    assert await shown() == about
    await world.services.workers.write_sightings_once()
    assert await shown() == about
    await sync(api, about={"pid": 8})
    assert await shown() == {"pid": 8}
