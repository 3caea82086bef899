"""POST /jobs/{id}/heartbeat: the lease goes on, news comes back (sections 3 and 4)."""

import pytest

from tests.api.calls import NOBODY, Api, ok, problem, refused
from tests.api.test_claims import seconds
from tests.conftest import World


async def test_a_heartbeat_answers_the_new_expiry(api: Api, world: World) -> None:
    lease = await api.started(lease_seconds=30)
    world.clock.move(10)
    assert await api.beat(lease) == {
        "id": lease["id"],
        "lease_expires_at": "2026-11-18T11:07:20.000000Z",
        "cancel_requested": False,
    }
    job = await api.get(lease)
    assert job["lease_expires_at"] == "2026-11-18T11:07:20.000000Z"
    assert job["last_heartbeat_at"] == "2026-11-18T11:06:50.000000Z"
    assert job["locked_at"] == lease["locked_at"]
    assert await api.actions(lease) == ["create", "claim"]  # no change of status


async def test_it_keeps_the_length_of_this_lease_not_the_jobs(api: Api, world: World) -> None:
    await api.create(lease_seconds=30)
    lease = await api.claim(lease_seconds=100)
    world.clock.move(1)
    beat = await api.beat(lease)
    assert seconds(beat["lease_expires_at"]) - seconds(lease["locked_at"]) == 101


async def test_an_expiry_never_comes_nearer(api: Api, world: World) -> None:
    lease = await api.started()
    world.clock.move(-20)  # the clock was set back
    assert (await api.beat(lease))["lease_expires_at"] == lease["lease_expires_at"]


async def test_an_expiry_stays_within_the_attempts_time(api: Api, world: World) -> None:
    lease = await api.started(lease_seconds=30, timeout_seconds=50)
    end = seconds(lease["locked_at"]) + 50
    for moved, expiry in ((10, 40), (15, 50), (20, 50), (10, 50), (100, 50)):
        world.clock.move(moved)
        beat = await api.beat(lease)  # 200, also when the time is over
        assert seconds(beat["lease_expires_at"]) == end - 50 + expiry
    assert (await api.get(lease))["status"] == "running"


async def test_a_lease_that_ran_out_may_be_extended_until_the_reaper_took_it(
    api: Api, world: World
) -> None:
    lease = await api.started(lease_seconds=10)
    world.clock.move(1000)
    beat = await api.beat(lease)
    assert seconds(beat["lease_expires_at"]) - seconds(lease["locked_at"]) == 1010
    await world.pass_time(9)
    await api.beat(lease)
    await world.pass_time(9)
    assert (await api.get(lease))["attempt"] == 1
    await world.pass_time(20)
    problem(await api.try_beat(lease), 409, "lease-lost")


async def test_progress_and_checkpoint_are_kept_until_they_are_replaced(api: Api) -> None:
    lease = await api.started()
    await api.beat(lease, progress={"done": 0.1}, checkpoint=[1, 2])
    await api.beat(lease)
    await api.beat(lease, progress=None, checkpoint=None)
    job = await api.get(lease)
    assert (job["progress"], job["checkpoint"]) == ({"done": 0.1}, [1, 2])
    await api.beat(lease, progress=0)
    await api.beat(lease, checkpoint="")
    job = await api.get(lease)
    assert (job["progress"], job["checkpoint"]) == (0, "")


async def test_the_next_attempt_is_given_the_checkpoint(api: Api) -> None:
    lease = await api.started()
    await api.beat(lease, checkpoint={"row": 17})
    await api.report(lease, "failed", retry_in_seconds=0)
    assert (await api.claim())["checkpoint"] == {"row": 17}


async def test_it_brings_back_a_cancel_request(api: Api) -> None:
    lease = await api.started()
    assert not (await api.beat(lease))["cancel_requested"]
    await api.cancel(lease)
    assert (await api.beat(lease))["cancel_requested"]


async def test_the_token_alone_is_the_fence(api: Api) -> None:
    lease = await api.started()
    ok(await api.try_beat({**lease, "locked_by": "somebody-else"}))
    assert (await api.get(lease))["locked_by"] == "w"


async def test_a_beat_may_be_repeated(api: Api) -> None:
    lease = await api.started()
    assert await api.beat(lease, progress=1) == await api.beat(lease, progress=1)


async def test_no_such_job_is_404(api: Api) -> None:
    nowhere = {"id": 17, "locked_by": "w", "lease_token": NOBODY}
    problem(await api.try_beat(nowhere), 404, "job-not-found")


async def test_a_lost_lease_says_who_holds_the_job_now(api: Api, world: World) -> None:
    stale = await api.started()
    await api.report(stale, "queued")
    world.clock.move(1)
    current = await api.claim("second")
    world.clock.move(1)
    await api.beat(current, progress="mine", checkpoint="mine")
    before = world.database.everything()
    for token in (stale["lease_token"], NOBODY, "x", current["lease_token"].upper()):
        answer = await api.try_beat({**stale, "lease_token": token}, progress=1, checkpoint=1)
        body = problem(answer, 409, "lease-lost")
        assert body["holder"] == "second"
        assert body["locked_at"] == "2026-11-18T11:06:41.000000Z"
        assert body["last_heartbeat_at"] == "2026-11-18T11:06:42.000000Z"
    assert world.database.everything() == before


@pytest.mark.parametrize(
    "ending", ["succeeded", "failed", "queued", "force", "reaper", "cancelled"]
)
async def test_a_job_that_nobody_holds_has_no_holder(api: Api, world: World, ending: str) -> None:
    lease = await api.started(max_retries=0)
    match ending:
        case "force":
            await api.cancel(lease, force=True)
        case "reaper":
            await world.pass_time(64)
        case "cancelled":
            await api.cancel(lease)
            await api.report(lease, "cancelled")
        case _:
            await api.report(lease, ending)
    before = world.database.everything()
    body = problem(await api.try_beat(lease, progress=1), 409, "lease-lost")
    assert body["holder"] is None
    assert body["locked_at"] is None
    assert body["last_heartbeat_at"] is None
    assert world.database.everything() == before


async def test_a_token_of_another_job_is_no_lease(api: Api, world: World) -> None:
    one, other = await api.started(), await api.started()
    before = world.database.everything()
    answer = await api.try_beat({**one, "lease_token": other["lease_token"]})
    problem(answer, 409, "lease-lost")
    assert world.database.everything() == before


async def test_worker_and_token_are_required(api: Api) -> None:
    lease = await api.started()
    path = f"/jobs/{lease['id']}/heartbeat"
    token = lease["lease_token"]
    for body in (
        {"lease_token": token},
        {"worker_id": "w"},
        {"worker_id": "w", "lease_token": ""},
        {"worker_id": "", "lease_token": token},
        {"worker_id": "a/b", "lease_token": token},
        {"worker_id": "w", "lease_token": 5},
        {"worker_id": 5, "lease_token": token},
        {"worker_id": "w", "lease_token": [token]},
    ):
        refused(await api.http.post(path, json=body))
