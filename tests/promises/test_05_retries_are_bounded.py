"""Promise 5: `retry_count <= max_retries`, always. A poison job ends in `exhausted`."""

import asyncio
import signal
import sys
from pathlib import Path

import httpx
import pytest

from tests.promises.calls import claimed, create, get, ok, operate, report
from tests.promises.records import actions, trail_of
from tests.promises.servers import ServerProcess, until

pytestmark = [pytest.mark.process, pytest.mark.asyncio(loop_scope="module")]

POISONED = Path(__file__).with_name("poisoned.py")
AT_ONCE = {"base_seconds": 0}


async def run_victim(url: str, queue: str) -> int:
    """The exit code of a worker process: 0 when there was nothing to claim."""
    process = await asyncio.create_subprocess_exec(sys.executable, str(POISONED), url, queue)
    return await process.wait()


@pytest.mark.parametrize("max_retries", [0, 2])
async def test_a_job_that_kills_its_workers_ends_exhausted(
    server: ServerProcess, http: httpx.AsyncClient, queue: str, max_retries: int
) -> None:
    poison = await create(http, queue=queue, max_retries=max_retries, retry=AT_ONCE)
    seen: list[int] = []

    async def left_by_its_victim() -> str | None:
        job = await get(http, poison["id"])
        seen.append(job["retry_count"])
        return job["status"] if job["status"] != "running" else None

    for run in range(max_retries + 1):
        assert await until(left_by_its_victim) == "queued"
        assert await run_victim(server.url, queue) == -signal.SIGKILL
        assert (await get(http, poison["id"]))["attempt"] == run + 1
    assert await until(left_by_its_victim) == "exhausted"
    assert await run_victim(server.url, queue) == 0

    job = await get(http, poison["id"])
    assert (job["status"], job["retry_count"]) == ("exhausted", max_retries)
    assert max(seen) == max_retries
    runs = ["claim", "lose"] * (max_retries + 1)
    assert actions(trail_of(server.database, poison["id"])) == ["create", *runs]


async def test_failures_and_lost_leases_spend_the_same_budget(
    server: ServerProcess, http: httpx.AsyncClient, queue: str
) -> None:
    job_id = (await create(http, queue=queue, max_retries=2, retry=AT_ONCE))["id"]
    lease = await claimed(http, queues=[queue])
    assert ok(await report(http, lease, "failed"))["retry_count"] == 1
    assert await run_victim(server.url, queue) == -signal.SIGKILL
    lease = await claimed(http, queues=[queue])
    ended = ok(await report(http, lease, "failed"))
    assert (ended["status"], ended["retry_count"]) == ("exhausted", 2)
    story = ["create", "claim", "fail", "claim", "lose", "claim", "fail"]
    assert actions(trail_of(server.database, job_id)) == story


async def test_a_release_spends_nothing_and_an_operators_retry_gives_all_back(
    http: httpx.AsyncClient, queue: str
) -> None:
    job_id = (await create(http, queue=queue, max_retries=1, retry=AT_ONCE))["id"]
    for count in range(1, 5):
        lease = await claimed(http, queues=[queue])
        released = ok(await report(http, lease, "queued", run_in_seconds=0))
        assert (released["retry_count"], released["release_count"]) == (0, count)
    for status in ("queued", "exhausted"):
        lease = await claimed(http, queues=[queue])
        failed = ok(await report(http, lease, "failed"))
        assert (failed["status"], failed["retry_count"]) == (status, 1)
    again = await operate(http, job_id, "retry")
    assert (again["status"], again["retry_count"], again["attempt"]) == ("queued", 0, 6)
