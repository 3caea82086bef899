"""What a worker does while it holds a lease: W5, W6, W10, W11."""

import asyncio
from collections.abc import Mapping
from itertools import pairwise
from typing import Any, Final

from compute_orchestrator.client.models import Job, Status
from compute_orchestrator.conformance.stage import (
    ECHO,
    FAIL,
    LEASE_SECONDS,
    SLEEP,
    TAKE_SECONDS,
    Failed,
    NotTested,
    Stage,
)
from compute_orchestrator.conformance.traffic import Call, Kind

BEAT_LEASE_SECONDS: Final = 6.0
BEAT_SLEEP_SECONDS: Final = 7.0
SLACK_SECONDS: Final = 1.0
"""A busy machine may be late by so much. It is half of the third that is asked for."""

LOST_SLEEP_SECONDS: Final = 5.0
AFTERWARDS_SECONDS: Final = 1.5
OBEY_SECONDS: Final = 6.0

NO_BEAT: Final = "no heartbeat came while it worked, so it could not hear of it: see W5"


async def heartbeats_in_time(stage: Stage) -> None:
    """W5. A job that takes longer than its lease."""
    job = await stage.create(
        SLEEP, {"seconds": BEAT_SLEEP_SECONDS}, lease_seconds=BEAT_LEASE_SECONDS
    )
    await stage.claimed(job)
    claim = stage.traffic.claim_of(job.id)
    report = await stage.until(
        lambda: next(iter(stage.reports(job)), None), BEAT_SLEEP_SECONDS + TAKE_SECONDS
    )
    if claim is None or claim.answered_at is None or report is None:
        raise NotTested(f"it did not report on a {SLEEP} of {BEAT_SLEEP_SECONDS:.0f} s: see W7")
    signs = [claim.answered_at, *(call.at for call in stage.beats(job)), report.at]
    longest = max(later - earlier for earlier, later in pairwise(signs))
    third = BEAT_LEASE_SECONDS / 3
    if longest > third + SLACK_SECONDS:
        raise Failed(
            f"of a lease of {BEAT_LEASE_SECONDS:.0f} s, {longest:.1f} s went by without a"
            f" heartbeat: send one at least every third of it ({third:.0f} s), so that two may be"
            " lost in a row"
        )


async def carries_the_token(stage: Stage) -> None:
    """W6. Three jobs, one after the other, each under a lease of its own."""
    for name, payload in (
        (ECHO, {"value": 1}),
        (FAIL, {"message": "as asked"}),
        (SLEEP, {"seconds": 2.5}),
    ):
        job = await stage.create(name, payload, max_retries=0)
        given = await stage.claimed(job)
        await stage.done(job)
        for call in (*stage.beats(job), *stage.reports(job)):
            _expect_proof(call, given)
    for call in stage.traffic.calls(Kind.CLAIM):
        if call.worker_id != stage.worker_id:
            raise Failed(f"it claims as {call.worker_id!r}; ORC_WORKER_ID is {stage.worker_id!r}")


def _expect_proof(call: Call, given: Mapping[str, Any]) -> None:
    if call.token != given["lease_token"]:
        raise Failed(
            f"a {call.kind} on a job did not carry the `lease_token` of the claim that brought it"
        )
    if call.worker_id != given["locked_by"]:
        raise Failed(f"a {call.kind} came from another `worker_id` than the claim")


async def stops_when_the_lease_is_lost(stage: Stage) -> None:
    """W10. An operator takes the job by force; the next heartbeat is answered with 409."""
    job = await stage.create(SLEEP, {"seconds": LOST_SLEEP_SECONDS})
    await stage.claimed(job)
    would_end = asyncio.get_running_loop().time() + LOST_SLEEP_SECONDS
    await _expect_a_beat(stage, job)
    await stage.client.cancel(job.id, force=True)

    def lost() -> Call | None:
        return next((call for call in stage.beats(job) if call.status == 409), None)

    told = await stage.until(lost, LEASE_SECONDS + SLACK_SECONDS)
    if told is None:
        raise NotTested(NO_BEAT)
    left = would_end - asyncio.get_running_loop().time() + AFTERWARDS_SECONDS
    report = await stage.until(lambda: next(iter(stage.reports(job)), None), left)
    if report is not None:
        raise Failed(
            f"it reported {report.sent.get('status')!r} on a job after a heartbeat was answered"
            " with 409 lease-lost: somebody else may have it, so stop working on it and send"
            " nothing more"
        )
    if any(call.at > told.at + SLACK_SECONDS for call in stage.beats(job)):
        raise Failed("it went on with heartbeats after one was answered with 409 lease-lost")
    await stage.goes_on()


async def obeys_a_cancel(stage: Stage) -> None:
    """W11. A running job is cancelled; the next heartbeat brings that back."""
    job = await stage.create(SLEEP, {"seconds": 60})
    await stage.claimed(job)
    await stage.client.cancel(job.id)

    def told() -> Call | None:
        beats = (call for call in stage.beats(job) if call.answered_at is not None)
        return next((call for call in beats if call.answer.get("cancel_requested")), None)

    if await stage.until(told, LEASE_SECONDS + SLACK_SECONDS) is None:
        raise NotTested(NO_BEAT)
    report = await stage.until(lambda: stage.told(stage.reports(job)), OBEY_SECONDS)
    if report is None:
        raise Failed(
            f"a heartbeat brought `cancel_requested`, and {OBEY_SECONDS:.0f} s later it was still"
            " at work: stop, and report `cancelled`"
        )
    if report.sent.get("status") != "cancelled":
        raise Failed(
            f"it was asked to stop and reported {report.sent.get('status')!r}: report `cancelled`"
        )
    if (await stage.client.get(job.id)).status != Status.CANCELLED:
        raise Failed("its report did not end the job as cancelled")
    await stage.goes_on()


async def _expect_a_beat(stage: Stage, job: Job) -> None:
    beat = await stage.until(lambda: stage.told(stage.beats(job)), LEASE_SECONDS)
    if beat is None:
        raise NotTested(NO_BEAT)
