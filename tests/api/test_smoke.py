"""The way of a job, once through."""

from tests.conftest import World


async def test_a_job_is_created_claimed_and_reported(world: World) -> None:
    job = (await world.http.post("/jobs", json={"name": "resize"})).json()
    lease = (await world.http.post("/jobs/claim", json={"worker_id": "w"})).json()
    assert lease["id"] == job["id"]
    report = {"status": "succeeded", "worker_id": "w", "lease_token": lease["lease_token"]}
    done = await world.http.patch(f"/jobs/{job['id']}/status", json=report)
    assert done.json()["status"] == "succeeded"


async def test_a_lost_lease_is_taken_after_its_time(world: World) -> None:
    await world.http.post("/jobs", json={"name": "resize"})
    await world.http.post("/jobs/claim", json={"worker_id": "w", "lease_seconds": 10})
    done = await world.pass_time(20)
    assert done.requeued == 1
