"""PATCH /jobs/{id}/status: what a holder may say, and that it may say it again (section 5)."""

import asyncio
from typing import Any

import pytest

from tests.api.calls import NOBODY, Api, Json, ok, problem, refused
from tests.api.test_claims import vanish
from tests.conftest import World

NOW = "2026-11-18T11:06:40.000000Z"
REPORTS: dict[str, Json] = {
    "succeeded": {"result": {"width": 640}},
    "failed": {"error": {"type": "Timeout"}, "retryable": True, "retry_in_seconds": 5},
    "queued": {"run_in_seconds": 5},
    "cancelled": {},
}
TAKERS = ["reaper", "operator", "server"]
ACTIONS = {"succeeded": "succeed", "failed": "fail", "queued": "release", "cancelled": "obey"}


async def ready(api: Api, status: str) -> Json:
    """A lease under which this status may be reported."""
    lease = await api.started()
    if status == "cancelled":
        await api.cancel(lease)
    return lease


async def test_a_success_ends_the_job_with_its_result(api: Api, world: World) -> None:
    lease = await api.started(max_retries=2)
    world.clock.move(5)
    job = await api.report(lease, "succeeded", result={"width": 640})
    assert "lease_token" not in job
    assert job == {
        **{name: value for name, value in lease.items() if name != "lease_token"},
        "status": "succeeded",
        "result": {"width": 640},
        "lease_expires_at": None,
        "finished_at": "2026-11-18T11:06:45.000000Z",
        "updated_at": "2026-11-18T11:06:45.000000Z",
    }
    assert job == await api.get(lease)


async def test_a_failure_queues_the_job_again(api: Api, world: World) -> None:
    lease = await api.started(payload=1)
    world.clock.move(5)
    error = {"type": "Timeout", "message": "no answer", "traceback": "...", "data": [1]}
    job = await api.report(lease, "failed", error=error, retry_in_seconds=7)
    created = {name: value for name, value in lease.items() if name != "lease_token"}
    assert job == {
        **created,
        "status": "queued",
        "attempt": 1,
        "retry_count": 1,
        "run_at": "2026-11-18T11:06:52.000000Z",
        "error": error,
        "locked_by": None,
        "locked_at": None,
        "last_heartbeat_at": None,
        "lease_expires_at": None,
        "finished_at": None,
        "updated_at": "2026-11-18T11:06:45.000000Z",
    }


async def test_an_error_is_the_last_failures_and_outlives_a_success(api: Api) -> None:
    lease = await api.started()
    await api.report(lease, "failed", error={"message": "first"}, retry_in_seconds=0)
    lease = await api.claim()
    assert lease["error"] == {"message": "first"}
    await api.report(lease, "failed", error={"message": "second"}, retry_in_seconds=0)
    lease = await api.claim()
    await api.report(lease, "queued")
    assert (await api.get(lease))["error"] == {"message": "second"}
    lease = await api.claim()
    assert (await api.report(lease, "succeeded"))["error"] == {"message": "second"}


async def test_a_failure_that_says_nothing_leaves_no_older_error(api: Api) -> None:
    lease = await api.started()
    await api.report(lease, "failed", error={"message": "first"}, retry_in_seconds=0)
    lease = await api.claim()
    assert (await api.report(lease, "failed"))["error"] is None


async def test_a_success_without_a_result_has_none(api: Api) -> None:
    assert (await api.report(await api.started(), "succeeded"))["result"] is None


async def test_the_reason_of_a_failure_is_a_short_text(api: Api) -> None:
    for error, reason in (
        ({"type": "Timeout", "message": "no answer"}, "Timeout: no answer"),
        ({"type": "Timeout"}, "Timeout"),
        ({"message": "no answer"}, "no answer"),
        ({"type": 5, "message": ["x"]}, None),
        ({}, None),
        (None, None),
    ):
        lease = await api.started(max_retries=0)
        await api.report(lease, "failed", error=error)
        assert (await api.events(lease))[-1]["reason"] == reason
    lease = await api.started(max_retries=0)
    await api.report(lease, "failed", error={"message": "é" * 10_000})
    assert len((await api.events(lease))[-1]["reason"]) < 1000


@pytest.mark.parametrize("status", REPORTS)
async def test_a_field_that_does_not_belong_is_refused(api: Api, world: World, status: str) -> None:
    lease = await ready(api, status)
    before = world.database.everything()
    values: Json = {
        "result": 1,
        "error": {},
        "retryable": False,
        "retry_in_seconds": 0,
        "run_in_seconds": 0,
    }
    for name, value in values.items():
        if name not in REPORTS[status]:
            refused(await api.try_report(lease, status, **{name: value}))
    assert world.database.everything() == before
    absent: Json = {name: None for name in values if name not in REPORTS[status]}
    await api.report(lease, status, **REPORTS[status], **absent)


async def test_no_other_status_can_be_reported(api: Api, world: World) -> None:
    lease = await api.started()
    before = world.database.everything()
    for status in ("running", "exhausted", "Succeeded", "", None, 5, ["failed"]):
        path = f"/jobs/{lease['id']}/status"
        holder = {"worker_id": "w", "lease_token": lease["lease_token"]}
        refused(await api.http.patch(path, json={**holder, "status": status}))
    for missing in ("status", "worker_id", "lease_token"):
        whole = {"status": "succeeded", "worker_id": "w", "lease_token": lease["lease_token"]}
        del whole[missing]
        refused(await api.http.patch(f"/jobs/{lease['id']}/status", json=whole))
    assert world.database.everything() == before


async def test_numbers_of_a_report_are_durations(api: Api) -> None:
    lease = await api.started()
    for status, name in (("failed", "retry_in_seconds"), ("queued", "run_in_seconds")):
        for bad in (-1, 31_536_001, "5", True):
            refused(await api.try_report(lease, status, **{name: bad}))
    refused(await api.try_report(lease, "failed", retryable="no"))
    refused(await api.try_report(lease, "failed", retryable=0))
    job = await api.report(lease, "failed", retry_in_seconds=31_536_000)
    assert job["run_at"] == "2027-11-18T11:06:40.000000Z"


# Said again


@pytest.mark.parametrize("status", REPORTS)
async def test_a_report_may_be_repeated(api: Api, world: World, status: str) -> None:
    lease = await ready(api, status)
    job = await api.report(lease, status, **REPORTS[status])
    before = world.database.everything()
    world.clock.move(3)
    assert await api.report(lease, status, **REPORTS[status]) == job
    assert await api.report({**lease, "locked_by": "another"}, status) == job
    assert world.database.everything() == before
    assert (await api.actions(lease))[-1] == ACTIONS[status]


async def test_a_repeat_counts_whatever_its_other_fields_say(api: Api) -> None:
    lease = await api.started()
    job = await api.report(lease, "succeeded", result=1)
    assert await api.report(lease, "succeeded", result=2) == job
    lease = await api.started()
    job = await api.report(lease, "failed", retry_in_seconds=100, error={"message": "a"})
    assert await api.report(lease, "failed", retryable=False, error={"message": "b"}) == job
    lease = await api.started(queue="other")
    job = await api.report(lease, "queued")
    assert await api.report(lease, "queued", run_in_seconds=500) == job


@pytest.mark.parametrize("first", REPORTS)
@pytest.mark.parametrize("second", REPORTS)
async def test_another_action_under_a_spent_lease_is_no_transition(
    api: Api, world: World, first: str, second: str
) -> None:
    if first == second:
        return
    lease = await ready(api, first)
    job = await api.report(lease, first, **REPORTS[first])
    before = world.database.everything()
    body = problem(await api.try_report(lease, second), 409, "invalid-transition")
    assert job["status"] in body["detail"]
    assert world.database.everything() == before


async def test_a_repeat_answers_the_job_as_it_stands_now(api: Api) -> None:
    lease = await api.started()
    await api.report(lease, "failed", retry_in_seconds=0)
    second = await api.claim("second")
    stands = await api.report(lease, "failed")
    assert stands["status"] == "running"
    assert stands["locked_by"] == "second"
    assert "lease_token" not in stands
    assert second["lease_token"] not in str(stands)
    await api.report(second, "succeeded", result="mine")
    assert (await api.report(lease, "failed"))["result"] == "mine"


@pytest.mark.parametrize("error", [{"message": "client-gone"}, {"type": "lease-expired"}])
async def test_no_words_of_an_error_spoil_the_repeat(api: Api, error: Json) -> None:
    lease = await api.started()
    job = await api.report(lease, "failed", error=error)
    assert await api.report(lease, "failed", error=error) == job


@pytest.mark.parametrize("worker_id", ["server", "reaper", "operator", "producer"])
async def test_no_name_of_a_worker_spoils_the_repeat(api: Api, worker_id: str) -> None:
    for status in ("queued", "failed", "succeeded"):
        await api.create()
        lease = await api.claim(worker_id)
        job = await api.report(lease, status, **REPORTS[status])
        assert await api.report(lease, status) == job


async def test_many_copies_at_once_are_taken_once(api: Api) -> None:
    lease = await api.started(max_retries=10)
    answers = await asyncio.gather(
        *(api.report(lease, "failed", retry_in_seconds=9) for _ in range(20))
    )
    assert all(answer == answers[0] for answer in answers)
    assert answers[0]["retry_count"] == 1
    assert await api.actions(lease) == ["create", "claim", "fail"]


async def test_of_two_different_reports_at_once_one_is_taken(api: Api) -> None:
    lease = await api.started()
    answers = await asyncio.gather(
        *(api.try_report(lease, status) for status in ("succeeded", "failed") * 5)
    )
    job = await api.get(lease)
    assert (await api.actions(lease))[:2] == ["create", "claim"]
    assert len(await api.events(lease)) == 3
    for n, answer in enumerate(answers):
        reported = "succeeded" if n % 2 == 0 else "failed"
        if (job["status"] == "succeeded") == (reported == "succeeded"):
            assert ok(answer) == job
        else:
            problem(answer, 409, "invalid-transition")


# Lost


async def taken_by(api: Api, world: World, who: str) -> Json:
    """A lease that somebody else ended. The job is final, or may be claimed."""
    if who == "server":
        return await released_by_server(api, world)
    lease = await api.started(lease_seconds=10, retry={"base_seconds": 0})
    match who:
        case "reaper":
            await world.pass_time(14)
        case "operator":
            await api.cancel(lease, force=True)
        case _:
            raise AssertionError(who)
    return lease


async def released_by_server(api: Api, world: World) -> Json:
    await api.create()
    sent = await vanish(world, {"worker_id": "gone"})
    assert sent  # the answer went nowhere; its token is read from the trail
    sql = "SELECT job_id AS id, lease_token FROM job_events WHERE action = 'release'"
    (released,) = world.database.rows(sql)
    return {"locked_by": "gone", **released}


@pytest.mark.parametrize("who", TAKERS)
@pytest.mark.parametrize("status", REPORTS)
async def test_a_lease_that_was_taken_away_is_lost_for_every_report(
    api: Api, world: World, who: str, status: str
) -> None:
    lease = await taken_by(api, world, who)
    before = world.database.everything()
    for _ in range(2):
        answer = await api.try_report(lease, status, **REPORTS[status])
        problem(answer, 409, "lease-lost")
    assert world.database.everything() == before


@pytest.mark.parametrize("status", REPORTS)
async def test_a_token_that_was_never_seen_is_no_lease(api: Api, world: World, status: str) -> None:
    queued = await api.create(queue="waiting")
    running = await api.started()
    other = await api.started()
    done = await api.started()
    await api.report(done, "succeeded")
    before = world.database.everything()
    for job in (queued, running, done):
        for token in (NOBODY, "x", other["lease_token"], running["lease_token"] + " "):
            lease = {"id": job["id"], "locked_by": "w", "lease_token": token}
            problem(await api.try_report(lease, status), 409, "lease-lost")
    assert world.database.everything() == before


@pytest.mark.parametrize("who", TAKERS)
async def test_a_lost_report_says_who_ended_the_lease_and_who_holds_the_job_now(
    api: Api, world: World, who: str
) -> None:
    lease = await taken_by(api, world, who)
    whose = {"holder": None, "locked_at": None, "last_heartbeat_at": None}
    body = problem(await api.try_report(lease, "succeeded"), 409, "lease-lost")
    assert {name: body[name] for name in whose} == whose
    await api.retry(lease)
    current = await api.claim("second")
    world.clock.move(1)
    await api.beat(current)
    now = await api.get(current)
    whose = {"holder": "second", **{name: now[name] for name in ("locked_at", "last_heartbeat_at")}}
    assert now["locked_at"] < now["last_heartbeat_at"]
    for token in (lease["lease_token"], NOBODY):
        answer = await api.try_report({**lease, "lease_token": token}, "succeeded")
        body = problem(answer, 409, "lease-lost")
        assert {name: body[name] for name in whose} == whose
        assert (f"ended by the {who}" in body["detail"]) == (token != NOBODY)


async def test_no_such_job_is_404(api: Api) -> None:
    nowhere = {"id": 17, "locked_by": "w", "lease_token": NOBODY}
    for status in REPORTS:
        problem(await api.try_report(nowhere, status), 404, "job-not-found")


async def test_a_lease_that_ran_out_may_be_reported_until_somebody_took_it(
    api: Api, world: World
) -> None:
    lease = await api.started(lease_seconds=10, timeout_seconds=10)
    world.clock.move(10_000)
    assert (await api.report(lease, "succeeded"))["status"] == "succeeded"


# Cancelling


async def test_cancelled_without_a_request_is_no_transition(api: Api, world: World) -> None:
    lease = await api.started()
    before = world.database.everything()
    body = problem(await api.try_report(lease, "cancelled"), 409, "invalid-transition")
    assert "running" in (str(body.get("job_status")), body["detail"])
    assert world.database.everything() == before
    await api.report(lease, "succeeded")


@pytest.mark.parametrize(
    ("status", "ends_as"),
    [
        ("succeeded", "succeeded"),
        ("failed", "cancelled"),
        ("queued", "cancelled"),
        ("cancelled", "cancelled"),
    ],
)
async def test_a_marked_job_never_goes_back_to_the_queue(
    api: Api, status: str, ends_as: str
) -> None:
    lease = await api.started()
    await api.cancel(lease)
    job = await api.report(lease, status, **REPORTS[status])
    assert job["status"] == ends_as
    assert job["finished_at"] == NOW
    last = (await api.events(lease))[-1]
    # The trail tells what was reported, not what came of it.
    assert (last["action"], last["to_status"]) == (ACTIONS[status], ends_as)
    assert await api.report(lease, status) == job
    if status != "cancelled":
        problem(await api.try_report(lease, "cancelled"), 409, "invalid-transition")
    assert await api.nothing_to_claim()


async def test_a_marked_job_whose_lease_is_lost_ends_cancelled(api: Api, world: World) -> None:
    lease = await api.started(lease_seconds=10)
    await api.cancel(lease)
    done = await world.pass_time(14)
    assert (done.requeued, done.exhausted, done.cancelled) == (0, 0, 1)
    assert (await api.get(lease))["status"] == "cancelled"
    last = (await api.events(lease))[-1]
    assert (last["action"], last["actor"], last["reason"]) == ("lose", "reaper", "lease-expired")


async def test_a_marked_job_that_failed_for_good_is_cancelled(api: Api) -> None:
    for fields in ({"retryable": False}, {"error": {"message": "x"}}):
        lease = await api.started(max_retries=0)
        await api.cancel(lease)
        assert (await api.report(lease, "failed", **fields))["status"] == "cancelled"


async def test_what_a_worker_may_hold_is_any_token_shape(api: Api) -> None:
    lease = await api.started()
    bad: tuple[Any, ...] = ("", "x" * 201, 5, None, {"a": 1})
    for token in bad:
        refused(await api.try_report({**lease, "lease_token": token}, "succeeded"))
