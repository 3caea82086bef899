"""The keeper of one lease, against a server that says what the test wants."""

import asyncio
import json
from collections.abc import Callable, Coroutine

import httpx
import pytest

from compute_orchestrator.client import OrchestratorClient
from compute_orchestrator.client.context import JobLog, Note, Notes
from compute_orchestrator.client.keeper import Keeper
from compute_orchestrator.client.models import ClaimedJob
from compute_orchestrator.client.retries import ONE_TRY
from tests.conftest import URL

EXPIRY = "2026-11-23T21:45:48.000000Z"
KEPT = {"id": 7, "lease_expires_at": EXPIRY, "cancel_requested": False}
JOB = ClaimedJob.model_validate(
    {
        "id": 7,
        "queue": "q",
        "name": "task",
        "status": "running",
        "attempt": 1,
        "lease_token": "t",
        "locked_by": "w",
        "locked_at": "2026-11-23T21:45:47.000000Z",
        "lease_expires_at": EXPIRY,
    }
)


Answer = (
    Callable[[httpx.Request], httpx.Response]
    | Callable[[httpx.Request], Coroutine[None, None, httpx.Response]]
)


class Kept:
    """A keeper, its notes, and what it told."""

    def __init__(self, answer: Answer) -> None:
        self.notes = Notes()
        self.told: list[str] = []
        self.keeper = Keeper(
            OrchestratorClient(URL, patience=ONE_TRY, transport=httpx.MockTransport(answer)),
            JOB,
            self.notes,
            on_lost=lambda: self.told.append("lost"),
            on_cancel=lambda: self.told.append("cancel"),
            log=JobLog(JOB),
        )


async def test_a_flush_is_repeated_until_it_is_answered() -> None:
    sent: list[object] = []

    def answer(request: httpx.Request) -> httpx.Response:
        sent.append(json.loads(request.content).get("checkpoint"))
        if len(sent) == 1:
            raise httpx.ReadError("cut", request=request)
        strangers = [httpx.Response(404), httpx.Response(422), httpx.Response(200, text="<html>")]
        return httpx.Response(200, json=KEPT) if len(sent) == 5 else strangers[len(sent) - 2]

    kept = Kept(answer)
    kept.notes.write(Note(checkpoint="c"))
    await kept.keeper.flush()
    assert sent == ["c"] * 5
    assert not kept.notes


async def test_a_flush_that_is_refused_is_given_up(caplog: pytest.LogCaptureFixture) -> None:
    kept = Kept(lambda _: httpx.Response(422, json={"code": "validation-error"}))
    kept.notes.write(Note(checkpoint="c"))
    await kept.keeper.flush()
    assert not kept.notes
    assert "refused progress or checkpoint" in caplog.text


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(409, json={"code": "lease-lost"}),
        httpx.Response(404, json={"code": "job-not-found"}),
    ],
)
async def test_a_lost_lease_ends_the_beats(answer: httpx.Response) -> None:
    kept = Kept(lambda _: answer)
    async with asyncio.timeout(10):
        await kept.keeper.run()
    assert kept.keeper.lost
    assert kept.told == ["lost"]
    await kept.keeper.flush()


@pytest.mark.parametrize(
    "answer", [httpx.Response(404), httpx.Response(409), httpx.Response(500), RuntimeError("?")]
)
async def test_no_other_answer_ends_the_beats(answer: httpx.Response | RuntimeError) -> None:
    """A proxy may say 404 while a server is exchanged; the lease stands."""
    again = asyncio.Event()
    calls: list[int] = []

    def refuse(_: httpx.Request) -> httpx.Response:
        calls.append(1)
        if len(calls) == 2:
            again.set()
            return httpx.Response(200, json={**KEPT, "cancel_requested": True})
        if isinstance(answer, RuntimeError):
            raise answer
        return answer

    kept = Kept(refuse)
    beating = asyncio.create_task(kept.keeper.run())
    await asyncio.wait_for(again.wait(), 10)
    beating.cancel()
    await asyncio.wait({beating})
    assert not kept.keeper.lost


async def test_a_stalled_heartbeat_is_given_up_for_the_next_one() -> None:
    again = asyncio.Event()
    calls: list[int] = []

    async def stall(_: httpx.Request) -> httpx.Response:
        calls.append(1)
        if len(calls) == 2:
            again.set()
        await asyncio.Event().wait()
        raise AssertionError

    kept = Kept(stall)
    beating = asyncio.create_task(kept.keeper.run())
    await asyncio.wait_for(again.wait(), 10)
    beating.cancel()
    await asyncio.wait({beating})


async def test_saving_often_makes_few_heartbeats() -> None:
    beats: list[object] = []
    three = asyncio.Event()

    def answer(request: httpx.Request) -> httpx.Response:
        beats.append(json.loads(request.content).get("checkpoint"))
        kept.notes.write(Note(checkpoint=len(beats)), urgent=True)
        if len(beats) == 3:
            three.set()
        return httpx.Response(200, json=KEPT)

    kept = Kept(answer)
    loop = asyncio.get_running_loop()
    kept.notes.write(Note(checkpoint=0), urgent=True)
    start = loop.time()
    beating = asyncio.create_task(kept.keeper.run())
    await asyncio.wait_for(three.wait(), 10)
    beating.cancel()
    await asyncio.wait({beating})
    assert beats == [0, 1, 2]
    assert loop.time() - start > 0.5  # the first at once, then about a third of a lease apart
