"""Promise 1: an accepted job survives kill -9 of the server, and reaches a final state or waits."""

import asyncio
from pathlib import Path

import pytest

from tests.databases import Database
from tests.promises.calls import claim, ok, report
from tests.promises.records import faults_of_trails, stored_jobs, trails
from tests.promises.servers import http_client, running_server, until
from tests.promises.writers import Crowd, Ledger
from tests.stores import SLOW_ON_POSTGRESQL

pytestmark = [pytest.mark.process, pytest.mark.timeout(120)]

RUNNING = "SELECT count(*) FROM jobs WHERE status = 'running'"
LEFT = "SELECT count(*) FROM jobs WHERE finished_at IS NULL"
ACTION_OF = {"succeeded": "succeed", "failed": "fail", "queued": "release"}


def lost(ledger: Ledger, database: Database) -> list[str]:
    """What was answered and does not stand in the file."""
    jobs = stored_jobs(database)
    steps = {
        (event.job_id, event.action, event.lease_token)
        for trail in trails(database).values()
        for event in trail
    }
    gone = [
        f"created: {job}"
        for job_id, job in ledger.created.items()
        if job_id not in jobs or jobs[job_id]["payload"] != f'"{job["payload"]}"'
    ]
    gone += [
        f"claimed: {lease}"
        for lease in ledger.leases
        if (lease["id"], "claim", lease["lease_token"]) not in steps
    ]
    for lease, status, answered in ledger.reports:
        stored = jobs.get(lease["id"])
        if (lease["id"], ACTION_OF[status], lease["lease_token"]) not in steps:
            gone.append(f"reported: {lease}")
        elif stored is None or (answered["finished_at"] and stored["status"] != answered["status"]):
            gone.append(f"finished: {answered}")
    return gone


@SLOW_ON_POSTGRESQL
async def test_what_was_answered_survives_kills_in_the_middle_of_a_hundred_writers(
    tmp_path: Path, store_url: str
) -> None:
    async with (
        running_server(tmp_path, database_url=store_url) as server,
        http_client(server.url) as http,
    ):
        crowd = Crowd(server, http)
        async with asyncio.TaskGroup() as group:
            group.create_task(crowd.run())
            for answers in (111, 302):
                await crowd.killed_at(answers)
                assert lost(crowd.ledger, server.database) == []
                assert faults_of_trails(server.database) == []
                await crowd.restarted()
            crowd.done = True
        ledger = crowd.ledger
        assert ledger.created
        assert ledger.leases
        assert ledger.reports

        # Leases whose claim or report was cut run out; then nothing is held by anybody.
        async def nothing_runs() -> bool:
            return server.database.value(RUNNING) == 0

        await until(nothing_runs)
        assert {job["status"] for job in stored_jobs(server.database).values()} <= {
            "queued",
            "succeeded",
            "failed",
            "exhausted",
        }

        # What waits in the queue can be done.
        async def work_off(name: str) -> bool:
            while (lease := await claim(http, name)) is not None:
                ok(await report(http, lease, "succeeded"))
            return server.database.value(LEFT) == 0

        await asyncio.gather(*(until(lambda n=n: work_off(f"late-{n}")) for n in range(8)))
        assert lost(ledger, server.database) == []
        assert faults_of_trails(server.database) == []
        assert server.database.is_whole()
