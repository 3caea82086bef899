"""Cancel, force, retry, reap: what an operator does, and does again (section 5)."""

import asyncio

import pytest

from tests.api.calls import Api, Json, ok, problem, refused
from tests.api.conftest import MakeWorld
from tests.conftest import World

FINAL = ["succeeded", "failed", "exhausted", "cancelled"]


async def ended(api: Api, world: World, status: str) -> Json:
    """A job in this final status, with all that it may show."""
    lease = await api.started(max_retries=1, lease_seconds=10)
    await api.beat(lease, progress=1, checkpoint=2)
    await api.report(lease, "failed", error={"message": "first"}, retry_in_seconds=0)
    lease = await api.claim()
    match status:
        case "succeeded":
            return await api.report(lease, "succeeded", result=3)
        case "failed":
            return await api.report(lease, "failed", retryable=False, error={"message": "last"})
        case "exhausted":
            await world.pass_time(14)
            return await api.get(lease)
        case _:
            return await api.cancel(lease, force=True)


# Cancel


@pytest.mark.parametrize("force", [False, True])
async def test_a_waiting_job_is_cancelled(api: Api, world: World, force: bool) -> None:
    jobs = [await api.create(), await api.create(run_in_seconds=100)]
    world.clock.move(1)
    for job in jobs:
        cancelled = await api.cancel(job, force=force)
        assert cancelled == {
            **job,
            "status": "cancelled",
            "cancel_requested": cancelled["cancel_requested"],
            "finished_at": "2026-11-18T11:06:41.000000Z",
            "updated_at": "2026-11-18T11:06:41.000000Z",
        }
        assert (await api.events(job))[-1]["from_status"] == "queued"
    await world.pass_time(200)
    assert await api.nothing_to_claim()


async def test_a_running_job_is_marked_and_goes_on(api: Api) -> None:
    lease = await api.started()
    job = await api.cancel(lease)
    assert job["status"] == "running"
    assert job["cancel_requested"]
    assert job["lease_expires_at"] == lease["lease_expires_at"]
    assert "lease_token" not in job
    assert await api.actions(lease) == ["create", "claim"]


async def test_cancelling_again_writes_nothing(api: Api, world: World) -> None:
    marked, cancelled = await api.started(), await api.create()
    for job in (marked, cancelled):
        first = await api.cancel(job)
        before = world.database.everything()
        world.clock.move(1)
        assert await api.cancel(job) == first
        assert world.database.everything() == before


async def test_force_ends_a_running_job_at_once(api: Api, world: World) -> None:
    for marked in (False, True):
        lease = await api.started()
        if marked:
            await api.cancel(lease)
        job = await api.cancel(lease, force=True)
        assert job["status"] == "cancelled"
        assert job["lease_expires_at"] is None
        assert job["finished_at"] is not None
        assert job["locked_by"] == "w"
        assert (await api.events(lease))[-1]["action"] == "cancel"
        # Its worker learns it.
        problem(await api.try_beat(lease), 409, "lease-lost")
        problem(await api.try_report(lease, "succeeded"), 409, "lease-lost")
        before = world.database.everything()
        assert await api.cancel(lease, force=True) == job
        assert world.database.everything() == before


@pytest.mark.parametrize("status", ["succeeded", "failed", "exhausted"])
async def test_a_job_that_ended_otherwise_cant_be_cancelled(
    api: Api, world: World, status: str
) -> None:
    job = await ended(api, world, status)
    before = world.database.everything()
    for query in ("", "?force=true", "?force=false"):
        body = problem(
            await api.http.post(f"/jobs/{job['id']}/cancel{query}"), 409, "invalid-transition"
        )
        assert status in (body.get("job_status"), body["detail"])
    assert world.database.everything() == before


async def test_a_cancel_and_a_success_at_once_have_one_winner(api: Api) -> None:
    for n in range(10):
        lease = await api.started()
        report = api.try_report(lease, "succeeded")
        cancel = api.http.post(f"/jobs/{lease['id']}/cancel", params={"force": "true"})
        calls = [report, cancel] if n % 2 else [cancel, report]
        answers = await asyncio.gather(*calls)
        assert sorted(answer.status_code for answer in answers) == [200, 409]
        assert len(await api.events(lease)) == 3


async def test_switches_are_true_or_false(api: Api) -> None:
    job = await api.create()
    for value in ("1", "0", "yes", "True", "TRUE", "", "on", "null"):
        refused(await api.http.post(f"/jobs/{job['id']}/cancel", params={"force": value}))
        refused(await api.http.post(f"/jobs/{job['id']}/retry", params={"again": value}))
    ok(await api.http.post(f"/jobs/{job['id']}/retry", params={"again": "false"}))
    ok(await api.http.post(f"/jobs/{job['id']}/cancel", params={"force": "false"}))


# Retry


@pytest.mark.parametrize("status", FINAL)
async def test_a_final_job_is_queued_with_fresh_budgets(
    api: Api, world: World, status: str
) -> None:
    job = await ended(api, world, status)
    world.clock.move(100)
    again = await api.retry(job, again=status == "succeeded")
    now = again["updated_at"]
    assert again == {
        **job,
        "status": "queued",
        "retry_count": 0,
        "release_count": 0,
        "run_at": now,
        "cancel_requested": False,
        "result": None,
        "progress": None,
        "finished_at": None,
        "locked_by": None,
        "locked_at": None,
        "last_heartbeat_at": None,
        "updated_at": now,
    }
    assert now > job["updated_at"]
    assert (again["attempt"], again["checkpoint"]) == (2, 2)
    assert again["error"] is not None
    last = (await api.events(job))[-1]
    assert (last["action"], last["from_status"], last["to_status"], last["actor"]) == (
        "retry", status, "queued", "operator",
    )  # fmt: skip
    lease = await api.claim()
    assert (lease["id"], lease["attempt"]) == (job["id"], 3)


async def test_a_retried_job_may_fail_as_often_as_a_new_one(api: Api) -> None:
    policy = {"base_seconds": 0}
    lease = await api.started(max_retries=1, retry=policy)
    assert (await api.report(lease, "failed"))["status"] == "queued"
    assert (await api.report(await api.claim(), "failed"))["status"] == "exhausted"
    assert (await api.retry(lease))["retry_count"] == 0
    assert (await api.report(await api.claim(), "failed"))["status"] == "queued"
    assert (await api.report(await api.claim(), "failed"))["status"] == "exhausted"


async def test_a_success_is_run_again_only_when_it_is_said(api: Api, world: World) -> None:
    job = await ended(api, world, "succeeded")
    before = world.database.everything()
    for query in ("", "?again=false"):
        problem(await api.http.post(f"/jobs/{job['id']}/retry{query}"), 409, "invalid-transition")
    assert world.database.everything() == before
    assert (await api.retry(job, again=True))["status"] == "queued"


async def test_retrying_a_queued_job_writes_nothing(api: Api, world: World) -> None:
    jobs = [await api.create(), await api.create(run_in_seconds=50)]
    before = world.database.everything()
    world.clock.move(1)
    for job in jobs:
        for again in (False, True):
            assert await api.retry(job, again=again) == job
    assert world.database.everything() == before


async def test_a_running_job_cant_be_retried(api: Api, world: World) -> None:
    lease = await api.started()
    before = world.database.everything()
    for query in ("", "?again=true"):
        answer = await api.http.post(f"/jobs/{lease['id']}/retry{query}")
        body = problem(answer, 409, "invalid-transition")
        assert "running" in body["detail"]
    assert world.database.everything() == before


async def test_a_lease_of_before_the_retry_stays_lost(api: Api, world: World) -> None:
    lease = await api.started()
    await api.cancel(lease, force=True)
    await api.retry(lease)
    current = await api.claim("second")
    before = world.database.everything()
    problem(await api.try_beat(lease), 409, "lease-lost")
    problem(await api.try_report(lease, "succeeded"), 409, "lease-lost")
    assert world.database.everything() == before
    await api.report(current, "succeeded")


async def test_many_retries_at_once_are_one(api: Api) -> None:
    job = await api.create()
    await api.cancel(job)
    answers = await asyncio.gather(*(api.retry(job) for _ in range(10)))
    assert all(answer == answers[0] for answer in answers)
    assert await api.actions(job) == ["create", "cancel", "retry"]


async def test_no_such_job_is_404(world: World) -> None:
    for path in ("/jobs/17/cancel", "/jobs/17/cancel?force=true", "/jobs/17/retry"):
        problem(await world.http.post(path), 404, "job-not-found")


# Reap


async def test_reap_tells_what_it_did(make_world: MakeWorld) -> None:
    world = await make_world(retention_seconds=40)
    api = Api(world.http)
    done = await api.started(queue="done")
    await api.report(done, "succeeded")
    await world.pass_time(20)
    again, over, marked, alive = [
        await api.started(queue=name, max_retries=n, lease_seconds=held)
        for name, n, held in (("a", 3, 10), ("b", 0, 10), ("c", 3, 10), ("d", 3, 100))
    ]
    await api.cancel(marked)
    assert ok(await api.http.post("/jobs/reap")) == {
        "requeued": 0, "exhausted": 0, "cancelled": 0, "pruned": 0,
    }  # fmt: skip
    await world.pass_time(8)  # awake all along, or no lease is taken
    world.clock.move(2)
    taken = ok(await api.http.post("/jobs/reap"))
    assert taken == {"requeued": 1, "exhausted": 1, "cancelled": 1, "pruned": 0}
    statuses = [(await api.get(job))["status"] for job in (again, over, marked, alive)]
    assert statuses == ["queued", "exhausted", "cancelled", "running"]
    world.clock.move(12)
    last = ok(await api.http.post("/jobs/reap"))
    assert last == {"requeued": 0, "exhausted": 0, "cancelled": 0, "pruned": 1}
    problem(await api.http.get(f"/jobs/{done['id']}"), 404, "job-not-found")


async def test_reaping_by_hand_after_a_gap_takes_nobodys_job(api: Api, world: World) -> None:
    lease = await api.started(lease_seconds=10)
    await world.pass_time(4)
    world.clock.move(3600)
    for _ in range(3):
        reaped = ok(await api.http.post("/jobs/reap"))
        assert reaped["requeued"] == 0
    await api.beat(lease)


async def test_what_is_reaped_is_not_reaped_again(api: Api, world: World) -> None:
    await api.started(lease_seconds=10)
    await world.pass_time(8)
    world.clock.move(2)
    answers = [
        ok(answer)
        for answer in await asyncio.gather(*(world.http.post("/jobs/reap") for _ in range(5)))
    ]
    world.clock.move(2)
    answers.append(ok(await world.http.post("/jobs/reap")))
    assert sum(answer["requeued"] for answer in answers) == 1
