"""Promise 3: a stale or foreign token never changes a job."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest

from tests.databases import Database
from tests.promises.calls import Job, beat, claimed, code, create, get, ok, operate, report
from tests.promises.records import Event, stored_jobs, trail_of
from tests.promises.servers import until

pytestmark = [pytest.mark.process, pytest.mark.asyncio(loop_scope="module")]

STATUSES = ("succeeded", "failed", "queued", "cancelled")
NEVER_GIVEN = "0123456789abcdef0123456789abcdef"


def whole(database: Database, job_id: int) -> tuple[dict[str, Any], list[Event]]:
    """All that is known of a job, the columns that are never shown too."""
    return stored_jobs(database)[job_id], trail_of(database, job_id)


async def succeeded(http: httpx.AsyncClient, lease: Job) -> None:
    ok(await report(http, lease, "succeeded", result=1))


async def failed(http: httpx.AsyncClient, lease: Job) -> None:
    ok(await report(http, lease, "failed", retry_in_seconds=0))


async def released(http: httpx.AsyncClient, lease: Job) -> None:
    ok(await report(http, lease, "queued"))


async def obeyed(http: httpx.AsyncClient, lease: Job) -> None:
    await operate(http, lease["id"], "cancel")
    ok(await report(http, lease, "cancelled"))


async def cancelled_by_force(http: httpx.AsyncClient, lease: Job) -> None:
    await operate(http, lease["id"], "cancel?force=true")


async def lost(http: httpx.AsyncClient, lease: Job) -> None:
    async def taken() -> bool:
        return (await get(http, lease["id"]))["status"] == "queued"

    await until(taken)


# How the lease ended, and which report is then a repeat of what was taken.
ENDS: dict[str, tuple[Callable[[httpx.AsyncClient, Job], Awaitable[None]], str | None]] = {
    "succeeded": (succeeded, "succeeded"),
    "failed": (failed, "failed"),
    "released": (released, "queued"),
    "obeyed": (obeyed, "cancelled"),
    "cancelled by force": (cancelled_by_force, None),
    "lost": (lost, None),
}


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("held_again", [False, True], ids=["left", "held again"])
async def test_the_token_of_a_lease_that_ended_changes_nothing(
    http: httpx.AsyncClient, database: Database, queue: str, end: str, held_again: bool
) -> None:
    end_lease, repeat = ENDS[end]
    wishes = {"queue": queue, "retry": {"base_seconds": 0}, "payload": {"as": "given"}}
    job_id = (await create(http, **wishes))["id"]
    lease_seconds = 1 if end == "lost" else 60
    stale = await claimed(http, "first", queues=[queue], lease_seconds=lease_seconds)
    ok(await beat(http, stale, progress=1, checkpoint={"step": 1}))
    await end_lease(http, stale)
    holder = None
    if held_again:
        if stored_jobs(database)[job_id]["finished_at"]:
            await operate(http, job_id, "retry?again=true")
        holder = await claimed(http, "second", queues=[queue], lease_seconds=60)
        assert holder["id"] == job_id
    before = whole(database, job_id)

    refused = await beat(http, stale, progress=2, checkpoint={"step": 2})
    assert (refused.status_code, code(refused)) == (409, "lease-lost")
    assert refused.json()["holder"] == (holder and "second")
    assert refused.json()["locked_at"] == (holder and holder["locked_at"])
    assert whole(database, job_id) == before

    for status in STATUSES:
        answer = await report(http, stale, status)
        if status == repeat:
            assert ok(answer) == await get(http, job_id)
        else:
            expected = "lease-lost" if repeat is None else "invalid-transition"
            assert (answer.status_code, code(answer)) == (409, expected)
        assert whole(database, job_id) == before


@pytest.mark.parametrize("status", ["queued", "running", *STATUSES[:2], "cancelled"])
async def test_a_foreign_token_changes_nothing(
    http: httpx.AsyncClient, database: Database, queue: str, status: str
) -> None:
    job_id = (await create(http, queue=queue))["id"]
    if status != "queued":
        lease = await claimed(http, "holder", queues=[queue], lease_seconds=60)
        if status == "cancelled":
            await cancelled_by_force(http, lease)
        elif status != "running":
            ok(await report(http, lease, status, **({} if status == "succeeded" else FOR_GOOD)))
    await create(http, queue=queue, priority=1)
    other = await claimed(http, "other", queues=[queue], lease_seconds=60)
    before = whole(database, job_id)
    assert before[0]["status"] == status

    for token in (NEVER_GIVEN, other["lease_token"], str(job_id)):
        foreign = {"id": job_id, "locked_by": "holder", "lease_token": token}
        refused = [await beat(http, foreign, progress=1)]
        refused += [await report(http, foreign, status) for status in STATUSES]
        assert {code(answer) for answer in refused} == {"lease-lost"}
        assert {answer.status_code for answer in refused} == {409}
        assert whole(database, job_id) == before
    ok(await beat(http, other))  # and the other's lease is as it was


FOR_GOOD = {"retryable": False}


async def test_a_token_for_a_job_that_is_not_there_is_404(http: httpx.AsyncClient) -> None:
    nobody = {"id": 2**40, "locked_by": "holder", "lease_token": NEVER_GIVEN}
    answers = [await beat(http, nobody)]
    answers += [await report(http, nobody, status) for status in STATUSES]
    assert {(answer.status_code, code(answer)) for answer in answers} == {(404, "job-not-found")}


@pytest.mark.parametrize("status", ["succeeded", "failed", "queued"])
async def test_among_many_reports_at_once_only_the_holders_counts(
    http: httpx.AsyncClient, database: Database, queue: str, status: str
) -> None:
    """They share a transaction, and each gets its own answer."""
    job_id = (await create(http, queue=queue))["id"]
    stale = await claimed(http, "first", queues=[queue])
    ok(await report(http, stale, "queued"))
    lease = await claimed(http, "second", queues=[queue])
    forged = [{**lease, "lease_token": f"{NEVER_GIVEN}{n}"} for n in range(20)]
    answers = await asyncio.gather(
        *(report(http, each, "succeeded", result="forged") for each in (stale, *forged[:10])),
        report(http, lease, status),
        *(report(http, each, "failed", retryable=False) for each in (stale, *forged[10:])),
    )
    taken = answers.pop(11)
    assert ok(taken)["id"] == job_id
    assert {answer.status_code for answer in answers} == {409}
    after, trail = whole(database, job_id)
    assert (after["result"], after["attempt"]) == (None, 2)
    story = [event.action for event in trail]
    last = {"succeeded": "succeed", "failed": "fail", "queued": "release"}[status]
    assert story == ["create", "claim", "release", "claim", last]
