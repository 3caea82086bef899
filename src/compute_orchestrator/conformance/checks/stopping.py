"""How a worker ends: W13."""

import asyncio
from typing import Final

from compute_orchestrator.client.models import Job, Status
from compute_orchestrator.conformance.proxy import Answer, Forward
from compute_orchestrator.conformance.stage import (
    SLEEP,
    TAKE_SECONDS,
    Failed,
    NotTested,
    Stage,
)
from compute_orchestrator.conformance.traffic import Call, Exchange, Kind

NOTICE_SECONDS: Final = 1.0
"""A claim that was being made when the signal came is no fault."""

HELD_SECONDS: Final = 1.0


async def ends_in_good_order_while_busy(stage: Stage) -> None:
    """W13. The signal comes while a job runs that takes longer than any worker would wait."""
    job = await stage.create(SLEEP, {"seconds": 600})
    await stage.claimed(job)
    signalled = await _end(stage)
    _expect_no_new_claims(stage, signalled)
    await _expect_it_was_let_go(stage, job, "the job that it was running")


async def ends_in_good_order_with_a_claim_on_its_way(stage: Stage) -> None:
    """W13. The signal comes when the server has given it a job, and before it knows."""
    given = asyncio.Event()

    async def hold_the_first_job(exchange: Exchange, forward: Forward) -> Answer | None:
        answer = await forward()
        if any(call.jobs for call in exchange.calls) and not given.is_set():
            given.set()
            await asyncio.sleep(HELD_SECONDS)
        return answer

    stage.proxy.treatment = hold_the_first_job
    job = await stage.echo()
    if await stage.until(given.is_set, TAKE_SECONDS) is None:
        raise NotTested("it did not claim a waiting job of its queue: see W2")
    await _end(stage)
    await _expect_it_was_let_go(
        stage,
        job,
        "a job that a claim on its way brought (wait for that claim's answer, or repeat it with its"
        " `request_id`)",
    )


async def _end(stage: Stage) -> float:
    """Tell it to, and wait until it has. When it was told."""
    signalled = asyncio.get_running_loop().time()
    stage.worker.terminate()
    code = await stage.worker.ended(stage.stop_seconds)
    if code is None:
        raise Failed(
            f"it still ran {stage.stop_seconds:.0f} s after SIGTERM: stop claiming, finish or hand"
            " back what runs, and exit. A shell or a tool between may keep the signal from it:"
            " start the worker itself, with `exec` in a script"
        )
    if code != 0:
        how = f"killed by signal {-code}" if code < 0 else f"with the exit code {code}"
        raise Failed(f"after SIGTERM it ended {how}: a worker that ended in good order says 0")
    return signalled


def _expect_no_new_claims(stage: Stage, signalled: float) -> None:
    known: set[str | None] = set()
    for call in stage.traffic.calls(Kind.CLAIM):
        if call.at <= signalled + NOTICE_SECONDS:
            known.add(call.request_id)
        elif call.request_id not in known:
            raise Failed("after SIGTERM it went on to claim")


async def _expect_it_was_let_go(stage: Stage, job: Job, what: str) -> None:
    now = await stage.client.get(job.id)
    events = await stage.client.events(job.id)
    if any(event.action == "lose" for event in events) or now.status == Status.RUNNING:
        raise Failed(
            f"after SIGTERM it left {what} to its lease, which costs a retry: go on with"
            " heartbeats, and finish it or report it as `queued` before you exit"
        )
    said: list[Call] = stage.reports(job)
    if now.retry_count or any(call.sent.get("status") == "failed" for call in said):
        raise Failed(
            f"it reported {what} as failed: to stop is no failure, hand it back as `queued`"
        )
