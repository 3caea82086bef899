"""Promise 2: at any moment a job has at most one unexpired lease; of many claims, one gets it."""

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.databases import Database
from tests.promises.calls import Job, beat, claim, code, create
from tests.promises.records import (
    Event,
    actions,
    faults_of_trails,
    micros,
    stored_jobs,
    trails,
)
from tests.promises.servers import http_client, running_server, until
from tests.promises.workers import Team, expired_leases, hire, overlaps
from tests.stores import SLOW_ON_POSTGRESQL

pytestmark = [
    pytest.mark.process,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.timeout(120),
]


async def test_two_hundred_claims_on_a_hundred_jobs_give_each_job_once(
    http: httpx.AsyncClient, database: Database, queue: str
) -> None:
    created = await asyncio.gather(*(create(http, queue=queue) for _ in range(100)))
    answers = await asyncio.gather(
        *(claim(http, f"worker-{n}", queues=[queue], lease_seconds=60) for n in range(200))
    )
    leases = [job for job in answers if job is not None]
    assert len(leases) == 100
    assert {job["id"] for job in leases} == {job["id"] for job in created}
    assert len({job["lease_token"] for job in leases}) == 100
    assert len({job["locked_by"] for job in leases}) == 100
    stored = stored_jobs(database)
    assert all(stored[job["id"]]["lease_token"] == job["lease_token"] for job in leases)
    assert all(stored[job["id"]]["locked_by"] == job["locked_by"] for job in leases)


async def test_copies_of_one_claim_at_the_same_time_give_one_lease(
    http: httpx.AsyncClient, queue: str
) -> None:
    await asyncio.gather(*(create(http, queue=queue) for _ in range(20)))
    copies = await asyncio.gather(
        *(claim(http, "worker", queues=[queue], request_id="the same") for _ in range(50))
    )
    assert len({(job["id"], job["lease_token"]) for job in copies if job is not None}) == 1
    assert None not in copies


async def test_no_two_leases_overlap_when_workers_fall_silent_fail_and_hand_back(
    http: httpx.AsyncClient, database: Database, queue: str
) -> None:
    wishes = {"queue": queue, "max_retries": 50, "retry": {"base_seconds": 0}}
    jobs = await asyncio.gather(*(create(http, **wishes) for _ in range(40)))
    team = Team(http, queue, lease_seconds=1)

    async def all_done() -> bool:
        stored = stored_jobs(database)
        return all(stored[job["id"]]["finished_at"] for job in jobs)

    async with asyncio.TaskGroup() as group:
        group.create_task(hire(team, 8))
        await until(all_done, 60)
        team.done = True
    assert overlaps(team.leases) == []
    assert faults_of_trails(database) == []
    found = trails(database)
    told = {(held.job_id, held.attempt, held.token) for held in team.leases}
    claims = [event for job in jobs for event in found[job["id"]] if event.action == "claim"]
    assert told == {(event.job_id, event.attempt, event.lease_token) for event in claims}
    assert {"lose", "fail", "release", "succeed"} <= {
        action for job in jobs for action in actions(found[job["id"]])
    }


@SLOW_ON_POSTGRESQL
async def test_the_reaper_and_a_heartbeat_racing_for_an_expired_lease_have_one_winner(
    tmp_path: Path, store_url: str
) -> None:
    outcomes: set[str] = set()
    # Its reaper passes only when it is told to.
    settings: dict[str, Any] = {"reaper_interval_seconds": 3600, "database_url": store_url}
    async with running_server(tmp_path, **settings) as server, http_client(server.url) as http:
        # Who wins a race is chance: they race until each has won.
        for number, beats_before in enumerate((0, 30) * 10):
            leases = await expired_leases(http, server.database, f"race-{number}", 60)
            answers = await race(http, leases, beats_before)
            stored = stored_jobs(server.database)
            found = trails(server.database)
            for lease, answer in zip(leases, answers, strict=True):
                outcomes.add(winner(stored[lease["id"]], found[lease["id"]], lease, answer))
            if len(outcomes) == 2 and number:
                break
    assert outcomes == {"heartbeat", "reaper"}


async def race(
    http: httpx.AsyncClient, leases: Sequence[Job], beats_before: int
) -> list[httpx.Response]:
    """The answers to a heartbeat for each lease; the reaper starts when some of them are away."""
    async with asyncio.TaskGroup() as group:
        early = [group.create_task(beat(http, lease)) for lease in leases[:beats_before]]
        group.create_task(http.post("/jobs/reap"))
        late = [group.create_task(beat(http, lease)) for lease in leases[beats_before:]]
    return [task.result() for task in (*early, *late)]


def winner(
    stored: Mapping[str, Any], trail: Sequence[Event], lease: Job, answer: httpx.Response
) -> str:
    """Who got the lease: whatever the heartbeat was answered, the row and the trail say so too."""
    if answer.is_error:
        assert code(answer) == "lease-lost"
        assert actions(trail) == ["create", "claim", "lose"]
        assert (stored["status"], stored["retry_count"]) == ("queued", 1)
        return "reaper"
    expiry = micros(answer.json()["lease_expires_at"])
    if actions(trail) == ["create", "claim"]:
        assert (stored["status"], stored["retry_count"]) == ("running", 0)
        assert stored["lease_token"] == lease["lease_token"]
        assert stored["lease_expires_at"] == expiry
    else:  # the new lease ran out as well before the reaper came
        assert actions(trail) == ["create", "claim", "lose"]
        assert trail[-1].at >= expiry
    return "heartbeat"
