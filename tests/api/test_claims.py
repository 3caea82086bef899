"""POST /jobs/claim: one job, one lease; which job, how long, and the claim repeated (section 3)."""

import asyncio
import json
from typing import Any

import pytest

from tests.api.calls import Api, Json, ok, places, refused
from tests.api.conftest import MakeWorld
from tests.conftest import World


def lease_of(job: Json) -> Json:
    """A claim's answer, without what the job shows everywhere."""
    return {name: value for name, value in job.items() if name != "lease_token"}


async def test_a_claim_answers_the_job_and_its_lease(api: Api) -> None:
    job = await api.create(payload={"a": 1})
    lease = await api.claim("host-1")
    assert isinstance(lease["lease_token"], str)
    assert len(lease["lease_token"]) >= 32
    assert lease_of(lease) == {
        **job,
        "status": "running",
        "attempt": 1,
        "locked_by": "host-1",
        "locked_at": "2026-11-18T11:06:40.000000Z",
        "last_heartbeat_at": "2026-11-18T11:06:40.000000Z",
        "lease_expires_at": "2026-11-18T11:07:40.000000Z",
    }
    assert lease_of(lease) == await api.get(job)  # the token is shown nowhere else
    assert all("lease_token" not in item for item in await api.jobs())


async def test_nothing_to_do_is_204_without_a_body(api: Api, world: World) -> None:
    before = world.database.everything()
    answer = await api.try_claim()
    assert answer.status_code == 204
    assert answer.content == b""
    assert world.database.everything() == before


async def test_each_lease_has_a_token_of_its_own(api: Api) -> None:
    tokens: set[str] = set()
    job = await api.create()
    for _ in range(5):
        lease = await api.claim()
        tokens.add(lease["lease_token"])
        await api.report(lease, "queued", run_in_seconds=0)
    assert len(tokens) == 5
    assert all(str(job["id"]) != token for token in tokens)


async def test_200_claims_at_once_take_100_jobs_once_each(api: Api, world: World) -> None:
    made = await asyncio.gather(*(api.create(payload=n) for n in range(100)))
    answers = await asyncio.gather(*(api.try_claim(f"w{n}") for n in range(200)))
    taken = [ok(answer) for answer in answers if answer.status_code == 200]
    assert sorted(lease["id"] for lease in taken) == sorted(job["id"] for job in made)
    assert sum(answer.status_code == 204 for answer in answers) == 100
    assert len({lease["lease_token"] for lease in taken}) == 100
    assert len({lease["locked_by"] for lease in taken}) == 100
    stats = ok(await world.http.get("/stats"))["queues"]["default"]
    assert (stats["queued"], stats["running"]) == (0, 100)


# Which job


async def test_the_queue_is_default_unless_named(api: Api) -> None:
    await api.create(queue="other")
    assert await api.nothing_to_claim()
    assert await api.nothing_to_claim(queues=["default"])
    assert (await api.claim(queues=["other"]))["queue"] == "other"


async def test_an_unknown_queue_is_an_empty_one(api: Api) -> None:
    job = await api.create()
    assert await api.nothing_to_claim(queues=["nowhere"])
    assert (await api.claim(queues=["nowhere", "default"]))["id"] == job["id"]


async def test_a_claim_names_1_to_32_queues(api: Api) -> None:
    job = await api.create(queue="q31")
    names = [f"q{n}" for n in range(33)]
    for bad in ([], names, "q31", {"q31": 1}, [None], [["q31"]], [""], ["a/b"]):
        refused(await api.try_claim(queues=bad))
    assert (await api.claim(queues=names[:32]))["id"] == job["id"]


async def test_duplicates_of_a_queue_count_once(api: Api) -> None:
    first = await api.create()
    await api.create()
    lease = await api.claim(queues=["default"] * 3)
    assert lease["id"] == first["id"]
    assert lease["attempt"] == 1
    many = [f"q{n}" for n in range(31)] * 2 + ["default"]  # 32 different ones
    answer = await api.try_claim(queues=many)
    assert ok(answer)["queue"] == "default"


async def test_higher_priority_then_run_at_then_id(api: Api) -> None:
    made = [
        await api.create(queue=queue, priority=priority, run_at=run_at)
        for queue, priority, run_at in (
            ("a", 0, "2020-01-01T00:00:00Z"),
            ("b", 5, "2021-01-01T00:00:00Z"),
            ("a", 5, "2020-06-01T00:00:00Z"),
            ("b", 0, "2019-01-01T00:00:00Z"),
            ("a", -5, "2018-01-01T00:00:00Z"),
            ("b", 5, "2020-06-01T00:00:00Z"),
        )
    ]
    taken = [(await api.claim(queues=["b", "a"]))["id"] for _ in made]
    assert taken == [made[n]["id"] for n in (2, 5, 1, 3, 0, 4)]
    assert await api.nothing_to_claim(queues=["b", "a"])


async def test_what_is_delayed_or_paused_is_not_taken(api: Api, world: World) -> None:
    await api.create(run_in_seconds=10, priority=100)
    await api.create(queue="paused", priority=50)
    await api.pause("paused")
    last = await api.create()
    queues = ["default", "paused"]
    assert (await api.claim(queues=queues))["id"] == last["id"]
    assert await api.nothing_to_claim(queues=queues)
    await world.pass_time(10)
    assert (await api.claim(queues=queues))["priority"] == 100
    await api.pause("paused", paused=False)
    assert (await api.claim(queues=queues))["priority"] == 50


# How long


@pytest.mark.parametrize(
    ("claims", "jobs", "at_most", "held"),
    [
        (None, None, None, 60),
        (None, 30, None, 30),
        (10, 30, None, 10),
        (120, 30, None, 120),
        (1.5, None, None, 1.5),
        (None, None, 20, 20),
        (None, 90, 20, 20),
        (90, None, 20, 20),
        (10, 90, 20, 10),
        (86_400, None, None, 86_400),
    ],
)
async def test_the_length_is_the_claims_then_the_jobs_then_the_settings_within_the_timeout(
    api: Api, world: World, claims: Any, jobs: Any, at_most: Any, held: float
) -> None:
    await api.create(lease_seconds=jobs, timeout_seconds=at_most)
    lease = await api.claim(lease_seconds=claims)
    assert seconds(lease["lease_expires_at"]) - seconds(lease["locked_at"]) == held
    assert lease["lease_seconds"] == jobs  # the job's own stands beside it
    await api.report(lease, "queued", run_in_seconds=0)
    again = await api.claim()
    usual = min(jobs or world.settings.lease_seconds, at_most or 1e9)
    assert seconds(again["lease_expires_at"]) - seconds(again["locked_at"]) == usual


async def test_the_setting_is_the_last_resort(make_world: MakeWorld) -> None:
    world = await make_world(lease_seconds=7)
    lease = await Api(world.http).started()
    assert seconds(lease["lease_expires_at"]) - seconds(lease["locked_at"]) == 7


async def test_a_claim_asks_for_1_to_86_400_seconds(api: Api) -> None:
    await api.create()
    for bad in (0, 0.5, -1, 86_401, "60", True, [60]):
        assert places(refused(await api.try_claim(lease_seconds=bad))) == {"body.lease_seconds"}
    ok(await api.try_claim(lease_seconds=1))


def seconds(moment: str) -> float:
    """The time of day, in seconds; a day later counts on."""
    day, hours, minutes, rest = moment[8:10], moment[11:13], moment[14:16], moment[17:26]
    return int(day) * 86_400 + int(hours) * 3600 + int(minutes) * 60 + float(rest)


# Asked again


async def test_a_repeated_request_gets_the_same_lease(api: Api) -> None:
    await api.create()
    await api.create()
    first = await api.claim("w", request_id="r")
    again = await api.claim("w", request_id="r", queues=["other"], lease_seconds=5)
    assert (again["id"], again["lease_token"]) == (first["id"], first["lease_token"])
    assert again["attempt"] == 1
    assert await api.actions(first) == ["create", "claim"]


async def test_another_worker_or_another_request_is_a_new_claim(api: Api) -> None:
    for _ in range(3):
        await api.create()
    leases = [
        await api.claim("w", request_id="r"),
        await api.claim("v", request_id="r"),
        await api.claim("w", request_id="s"),
    ]
    assert len({lease["id"] for lease in leases}) == 3
    assert await api.nothing_to_claim("w", request_id="t")
    assert (await api.claim("v", request_id="r"))["id"] == leases[1]["id"]


async def test_copies_at_once_give_one_claim(api: Api) -> None:
    for _ in range(3):
        await api.create()
    answers = await asyncio.gather(*(api.claim("w", request_id="r") for _ in range(20)))
    assert len({(lease["id"], lease["lease_token"]) for lease in answers}) == 1
    running = await api.jobs(status="running")
    assert [job["attempt"] for job in running] == [1]


async def test_a_repeat_counts_as_a_heartbeat(api: Api, world: World) -> None:
    await api.create()
    first = await api.claim("w", request_id="r", lease_seconds=30)
    world.clock.move(40)  # it ran out, but nobody took it
    again = await api.claim("w", request_id="r")
    assert again["lease_token"] == first["lease_token"]
    assert seconds(again["lease_expires_at"]) - seconds(first["lease_expires_at"]) == 40
    assert seconds(again["last_heartbeat_at"]) - seconds(first["last_heartbeat_at"]) == 40
    assert again["locked_at"] == first["locked_at"]


async def test_a_repeat_extends_to_the_attempts_end_and_no_further(api: Api, world: World) -> None:
    await api.create(timeout_seconds=50)
    first = await api.claim("w", request_id="r", lease_seconds=30)
    world.clock.move(29)
    again = await api.claim("w", request_id="r")
    assert seconds(again["lease_expires_at"]) - seconds(first["locked_at"]) == 50


async def test_after_a_report_it_is_a_new_claim(api: Api) -> None:
    jobs = [await api.create() for _ in range(4)]
    for job, status in zip(jobs, ("succeeded", "failed", "queued"), strict=False):
        lease = await api.claim("w", request_id="r")
        assert lease["id"] == job["id"]
        field = {"run_in_seconds": 1000} if status == "queued" else {}
        await api.report(lease, status, **field)
    lease = await api.claim("w", request_id="r")
    assert lease["id"] == jobs[3]["id"]
    await api.cancel(lease, force=True)
    assert await api.nothing_to_claim("w", request_id="r")


async def test_after_a_lost_lease_it_is_a_new_claim(api: Api, world: World) -> None:
    await api.create(max_retries=0)
    first = await api.claim("w", request_id="r", lease_seconds=10)
    await world.pass_time(14)
    other = await api.create()
    again = await api.claim("w", request_id="r")
    assert again["id"] == other["id"]
    assert again["lease_token"] != first["lease_token"]


async def test_a_request_that_found_nothing_is_asked_anew(api: Api) -> None:
    assert await api.nothing_to_claim("w", request_id="r")
    job = await api.create()
    assert (await api.claim("w", request_id="r"))["id"] == job["id"]


async def test_a_repeat_is_answered_from_a_paused_queue_too(api: Api) -> None:
    await api.create()
    first = await api.claim("w", request_id="r")
    await api.pause("default")
    again = await api.claim("w", request_id="r")
    assert again["lease_token"] == first["lease_token"]


async def test_a_request_id_has_1_to_200_bytes(api: Api) -> None:
    await api.create()
    for bad in ("", "x" * 201, "é" * 101, 5, True, "a\0b"):
        refused(await api.try_claim(request_id=bad))
    lease = await api.claim(request_id="é" * 100)
    assert (await api.claim(request_id="é" * 100))["lease_token"] == lease["lease_token"]


# The client that went away


async def vanish(world: World, body: Json) -> list[Any]:
    """Claim, and close the connection before the answer. What the server sent all the same."""
    sent: list[Any] = []

    request = {"type": "http.request", "body": json.dumps(body).encode(), "more_body": False}
    received = iter([request])

    async def receive() -> Json:
        return next(received, {"type": "http.disconnect"})

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(b"host", b"127.0.0.1"), (b"content-type", b"application/json")]
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": "/jobs/claim",
        "raw_path": b"/jobs/claim",
        "query_string": b"",
        "root_path": "",
        "headers": headers,
        "client": ("127.0.0.1", 50_000),
        "server": ("127.0.0.1", 8000),
    }
    await world.app(scope, receive, send)
    return sent


async def test_a_claim_whose_client_vanished_is_handed_back_uncounted(
    api: Api, world: World
) -> None:
    job = await api.create(run_at="2020-01-01T00:00:00Z")
    await vanish(world, {"worker_id": "gone"})
    back = await api.get(job)
    assert back == {**job, "attempt": 1, "updated_at": back["updated_at"]}
    assert back["release_count"] == back["retry_count"] == 0
    last = (await api.events(job))[-1]
    assert (last["action"], last["from_status"], last["to_status"], last["actor"]) == (
        "release", "running", "queued", "server",
    )  # fmt: skip
    for _ in range(3):
        await vanish(world, {"worker_id": "gone"})
    lease = await api.claim("next")  # at once, in its place, however often
    assert (lease["id"], lease["attempt"], lease["release_count"]) == (job["id"], 5, 0)


async def test_a_claim_with_a_request_id_waits_for_its_repeat(api: Api, world: World) -> None:
    job = await api.create()
    await vanish(world, {"worker_id": "w", "request_id": "r"})
    assert (await api.get(job))["status"] == "running"
    assert await api.nothing_to_claim("other")
    lease = await api.claim("w", request_id="r")
    assert (lease["id"], lease["attempt"]) == (job["id"], 1)


async def test_a_vanished_client_of_an_empty_queue_does_no_harm(api: Api, world: World) -> None:
    before = world.database.everything()
    await vanish(world, {"worker_id": "w"})
    assert world.database.everything() == before
    await api.started()
