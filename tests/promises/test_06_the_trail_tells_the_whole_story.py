"""Promise 6: a job's events form a path through the state machine that ends in its status, written
in the same transaction.
"""

import asyncio
from pathlib import Path

import httpx
import pytest

from tests.databases import Database
from tests.promises.calls import beat, claimed, create, get, ok, operate, report
from tests.promises.records import (
    COUNTED,
    DISAGREEMENTS,
    TOLD,
    faults_of_trails,
    trail_of,
)
from tests.promises.servers import http_client, running_server, until
from tests.promises.writers import Crowd
from tests.stores import SLOW_ON_POSTGRESQL

pytestmark = [
    pytest.mark.process,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.timeout(120),
]


async def test_every_way_through_the_state_machine_is_told_as_it_was(
    http: httpx.AsyncClient, database: Database, queue: str
) -> None:
    job_id = (await create(http, queue=queue, max_retries=1, retry={"base_seconds": 0}))["id"]
    lease = await claimed(http, "w1", queues=[queue])
    ok(await report(http, lease, "failed", error={"type": "Broken", "message": "at first"}))
    lease = await claimed(http, "w2", queues=[queue])
    ok(await report(http, lease, "queued"))
    lease = await claimed(http, "w3", queues=[queue])
    ok(await beat(http, lease, progress=1))
    ok(await report(http, lease, "failed"))
    await operate(http, job_id, "retry")
    lease = await claimed(http, "w4", queues=[queue])
    ok(await report(http, lease, "succeeded"))
    await operate(http, job_id, "retry?again=true")
    await operate(http, job_id, "cancel")
    await operate(http, job_id, "retry")
    lease = await claimed(http, "w5", queues=[queue])
    await operate(http, job_id, "cancel")
    ok(await report(http, lease, "cancelled"))
    await operate(http, job_id, "retry")
    await claimed(http, "w6", queues=[queue], lease_seconds=1)
    lease = await claimed(http, "w7", queues=[queue])  # once the reaper took it from w6
    await operate(http, job_id, "cancel?force=true")
    await operate(http, job_id, "retry")
    lease = await claimed(http, "w8", queues=[queue])
    ok(await report(http, lease, "failed", retryable=False))

    assert [
        (event.action, event.from_status, event.to_status, event.actor, event.reason, event.attempt)
        for event in trail_of(database, job_id)
    ] == [
        ("create", None, "queued", "producer", None, 0),
        ("claim", "queued", "running", "w1", None, 1),
        ("fail", "running", "queued", "w1", "Broken: at first", 1),
        ("claim", "queued", "running", "w2", None, 2),
        ("release", "running", "queued", "w2", None, 2),
        ("claim", "queued", "running", "w3", None, 3),
        ("fail", "running", "exhausted", "w3", None, 3),
        ("retry", "exhausted", "queued", "operator", None, 3),
        ("claim", "queued", "running", "w4", None, 4),
        ("succeed", "running", "succeeded", "w4", None, 4),
        ("retry", "succeeded", "queued", "operator", None, 4),
        ("cancel", "queued", "cancelled", "operator", None, 4),
        ("retry", "cancelled", "queued", "operator", None, 4),
        ("claim", "queued", "running", "w5", None, 5),
        ("obey", "running", "cancelled", "w5", None, 5),
        ("retry", "cancelled", "queued", "operator", None, 5),
        ("claim", "queued", "running", "w6", None, 6),
        ("lose", "running", "queued", "reaper", "lease-expired", 6),
        ("claim", "queued", "running", "w7", None, 7),
        ("cancel", "running", "cancelled", "operator", None, 7),
        ("retry", "cancelled", "queued", "operator", None, 7),
        ("claim", "queued", "running", "w8", None, 8),
        ("fail", "running", "failed", "w8", None, 8),
    ]
    told = ok(await http.get(f"/jobs/{job_id}/events"))["events"]
    assert [event["to_status"] for event in told][-1] == (await get(http, job_id))["status"]
    assert len(told) == len(trail_of(database, job_id))


@SLOW_ON_POSTGRESQL
async def test_no_snapshot_shows_a_status_without_its_event_and_no_kill_leaves_one(
    tmp_path: Path, store_url: str
) -> None:
    async with (
        running_server(tmp_path, database_url=store_url) as server,
        http_client(server.url) as http,
    ):
        crowd = Crowd(server, http, writers=40)
        snapshots = 0

        async def look(answers: int) -> bool:
            nonlocal snapshots
            snapshots += 1
            assert await asyncio.to_thread(server.database.rows, DISAGREEMENTS) == []
            return crowd.ledger.answers >= answers

        async with asyncio.TaskGroup() as group:
            group.create_task(crowd.run())
            await until(lambda: look(150))
            await crowd.killed_at(51)
            assert faults_of_trails(server.database) == []
            assert server.database.rows(COUNTED) == server.database.rows(TOLD)
            await crowd.restarted()
            crowd.done = True
        assert snapshots > 1
        assert server.database.value("SELECT count(*) FROM job_events") >= crowd.ledger.answers
