"""One call for many reports, heartbeats and a claim, as the client makes it."""

import asyncio

import httpx
import pytest

from compute_orchestrator.client import (
    BeatItem,
    ClaimPart,
    NewJob,
    OrchestratorClient,
    Report,
    errors,
)
from compute_orchestrator.client.models import ClaimedJob, Status
from tests.client.wires import LOCAL, Proxy, Wire, answering
from tests.conftest import URL

W = "wörker 1%"


async def claimed(client: OrchestratorClient, count: int) -> list[ClaimedJob]:
    await client.create_many([NewJob("task", n) for n in range(count)])
    return (await client.sync(W, claim=ClaimPart(None, limit=count))).jobs


async def test_each_item_has_an_answer_of_its_own(client: OrchestratorClient) -> None:
    done, failed, stale, again, kept, lost, bad = await claimed(client, 7)
    stranger = done.model_copy(update={"id": 4711})
    foreign = {"lease_token": "not-the-token"}
    await client.report_succeeded(again)
    answer = await client.sync(
        W,
        about={"host": "here", "pid": 7},
        reports=[
            (done, Report.succeeded({"size": 3})),
            (failed, Report.failed({"type": "Boom"}, retryable=False)),
            (stale.model_copy(update=foreign), Report.succeeded()),
            (stranger, Report.succeeded()),
            (again, Report.succeeded()),
            (bad, Report.failed(retry_in_seconds=-1)),
        ],
        heartbeats=[
            BeatItem(kept, progress={"fraction": 0.5}, checkpoint={"page": 2}),
            BeatItem(lost.model_copy(update=foreign)),
        ],
        claim=ClaimPart(["default", "nobody"], limit=3, lease_seconds=5),
    )
    said = [(item.id, item.status, type(item.error())) for item in answer.reports]
    assert said == [
        (done.id, Status.SUCCEEDED, type(None)),
        (failed.id, Status.FAILED, type(None)),
        (stale.id, None, errors.LeaseLost),
        (4711, None, errors.JobNotFound),
        (again.id, Status.SUCCEEDED, type(None)),
        (bad.id, None, errors.ValidationFailed),
    ]
    extended, refused = answer.heartbeats
    assert (extended.id, extended.error(), extended.cancel_requested) == (kept.id, None, False)
    assert extended.lease_expires_at is not None
    error = refused.error()
    assert isinstance(error, errors.LeaseLost)
    assert (error.status, error.holder) == (409, W)
    assert answer.jobs == []
    assert (await client.get(kept.id)).checkpoint == {"page": 2}
    assert [worker.about for worker in await client.workers()] == [{"host": "here", "pid": 7}]


async def test_a_claim_is_for_as_many_as_there_are(client: OrchestratorClient) -> None:
    first, second = await claimed(client, 2)
    assert (first.payload, second.payload) == (0, 1)
    assert first.locked_by == W
    assert first.lease_token != second.lease_token
    again = await client.sync("other", claim=ClaimPart(None, limit=9))
    assert again.jobs == []


async def test_what_says_nothing_is_not_sent(client: OrchestratorClient, wire: Wire) -> None:
    (job,) = await claimed(client, 1)
    await client.sync(W, heartbeats=[BeatItem(job)])
    await client.sync(W, reports=[(job, Report.succeeded())])
    claim, beat, report = [exchange.body for exchange in wire.record.of("POST /sync")]
    assert set(claim) == {"claim"}
    assert set(claim["claim"]) == {"limit", "request_id"}
    proof = {"id": job.id, "lease_token": job.lease_token}
    assert beat == {"heartbeats": [proof]}
    assert report == {"reports": [{**proof, "status": "succeeded"}]}


async def test_a_sync_whose_answer_was_lost_brings_the_same_jobs(proxy: Proxy) -> None:
    proxy.lose("POST /sync")
    async with OrchestratorClient(proxy.url) as client:
        jobs = await claimed(client, 3)
        assert [(job.payload, job.attempt) for job in jobs] == [(0, 1), (1, 1), (2, 1)]
        assert [exchange.status for exchange in proxy.record.of("POST /sync")] == [None, 200]


async def test_a_claim_alone_waits_for_jobs(server_port: int) -> None:
    async with OrchestratorClient(f"http://{LOCAL}:{server_port}", timeout_seconds=5) as client:
        part = ClaimPart(["late"], limit=5, wait_seconds=20)
        waiting = asyncio.create_task(client.sync(W, claim=part))
        while not [seen for seen in await client.workers() if seen.worker_id == W]:
            assert not waiting.done()
        await client.create("task", queue="late")
        async with asyncio.timeout(10):
            assert [job.queue for job in (await waiting).jobs] == ["late"]


@pytest.mark.parametrize(
    ("is_alone", "longest"), [(True, 23.0), (False, 3.0)], ids=["alone", "with a report"]
)
async def test_a_call_that_waits_has_its_wait_and_its_timeout(
    is_alone: bool, longest: float
) -> None:
    timeouts: list[float] = []

    def remember(request: httpx.Request) -> httpx.Response:
        timeouts.append(request.extensions["timeout"]["read"])
        return httpx.Response(200, json={"reports": [], "heartbeats": [], "jobs": []})

    client = OrchestratorClient(URL, transport=answering(remember))
    job = ClaimedJob.model_validate_json(JOB)
    await client.sync(
        W,
        reports=[] if is_alone else [(job, Report.succeeded())],
        claim=ClaimPart(None, limit=1, wait_seconds=20),
        timeout_seconds=3,
    )
    assert timeouts == [longest]


JOB = """{"id": 1, "queue": "q", "name": "n", "status": "running", "lease_token": "t",
"locked_by": "w", "locked_at": "2026-11-23T21:45:47Z", "lease_expires_at": "2026-11-23T21:46:47Z"}
"""


async def test_an_answer_may_leave_out_and_add_fields() -> None:
    answer = {
        "reports": [{"id": 1, "status": "blocked", "new": 1}, {"problem": {"code": "brand-new"}}],
        "later": [],
    }
    client = OrchestratorClient(
        URL, transport=answering(lambda _: httpx.Response(200, json=answer))
    )
    known, strange = (await client.sync(W)).reports
    assert (known.status, known.error()) == ("blocked", None)
    error = strange.error()
    assert (type(error), strange.id) == (errors.BadInput, None)
    assert error is not None
    assert (error.status, error.code) == (400, "brand-new")
