"""How a worker says what came out: W7, W8, W9, W15."""

import asyncio
from typing import Any, Final

from compute_orchestrator.client.models import Job, Status
from compute_orchestrator.conformance.proxy import Answer, Forward, busy
from compute_orchestrator.conformance.stage import (
    ECHO,
    FAIL,
    SLEEP,
    TAKE_SECONDS,
    Failed,
    NotTested,
    Stage,
)
from compute_orchestrator.conformance.traffic import Exchange, Kind

VALUE: Final[dict[str, Any]] = {
    "text": 'Grüße, 世界 "quoted" \\ \'n so on\n',
    "numbers": [0, -7, 2.5],
    "none": None,
    "nested": {"empty": {}, "list": [[], True, False]},
}
REASON: Final = "this is what was asked for"

WORK_SECONDS: Final = 1.5
"""Long enough for a heartbeat, so that it is seen whether there are any."""

REFUSED_SECONDS: Final = 4.0
"""Longer than the lease, which the heartbeats must keep meanwhile."""

REFUSED_SYNC_SECONDS: Final = 1.5
"""A sync that is refused takes its heartbeats with it, so the lease has to last."""

REPEAT_SECONDS: Final = 10.0
WATCH_SECONDS: Final = 3.0
MANY: Final = 12


async def says_what_came_out(stage: Stage) -> None:
    """W7. A success with its result, a failure with its reason, and on to the next."""
    job = await stage.done(await stage.echo(VALUE))
    if job.status != Status.SUCCEEDED:
        raise Failed(f"a {ECHO} came to be {job.status}, not succeeded")
    if job.result != VALUE:
        raise Failed(f"a {ECHO} with the value {VALUE!r} has the result {job.result!r}")
    failed = await stage.done(await stage.create(FAIL, {"message": REASON}, max_retries=0))
    if failed.status != Status.FAILED:
        raise Failed(f"a {FAIL} came to be {failed.status}, not failed")
    if REASON not in str((failed.error or {}).get("message")):
        raise Failed(
            f"the `error` of a {FAIL} is {failed.error!r}: its `message` is to be the payload's"
        )
    await stage.goes_on()


async def repeats_until_answered(stage: Stage) -> None:
    """W8. The report is refused with 503 for longer than the lease; then its answer is lost."""
    refused_until: list[float] = []
    lost: list[Exchange] = []
    job = await stage.create(SLEEP, {"seconds": WORK_SECONDS})

    async def hinder(exchange: Exchange, forward: Forward) -> Answer | None:
        if not exchange.carries(Kind.REPORT, job.id) or lost:
            return await forward()
        now = asyncio.get_running_loop().time()
        seconds = REFUSED_SYNC_SECONDS if exchange.is_sync else REFUSED_SECONDS
        refused_until.append(now + seconds)
        if now < refused_until[0]:
            return busy(1)
        lost.append(exchange)
        await forward()
        return None

    stage.proxy.treatment = hinder
    await stage.claimed(job)
    await _expect_reports(stage, job, 1, "it never reported on the job")
    if await stage.until(lambda: bool(lost), REFUSED_SECONDS + REPEAT_SECONDS) is None:
        raise Failed(
            "its report was answered with 503, and it gave up: repeat it, after the `Retry-After`,"
            " until the server takes it or refuses it for good"
        )
    await _expect_reports(
        stage,
        job,
        len(refused_until) + 1,
        "the answer to its report was lost, and it did not repeat it: whether the report was taken"
        " is known only from an answer, so send the same again until there is one",
    )
    said = [(call.token, call.sent.get("status")) for call in stage.reports(job)]
    if len(set(said)) > 1:
        raise Failed(f"it did not repeat the same report: first {said[0]}, in the end {said[-1]}")
    done = await stage.client.get(job.id)
    if (done.status, done.attempt) != (Status.SUCCEEDED, 1):
        if not any(call.at < stage.reports(job)[0].at for call in stage.beats(job)):
            raise NotTested("it never heartbeats, so the lease ran out: see W5")
        raise Failed(
            f"the job is {done.status} after {done.attempt} attempts: the lease ran out while the"
            " report was repeated. Go on with heartbeats until a report has its answer"
        )
    await stage.goes_on()


async def _expect_reports(stage: Stage, job: Job, number: int, otherwise: str) -> None:
    if await stage.until(lambda: len(stage.reports(job)) >= number, REPEAT_SECONDS) is None:
        raise Failed(otherwise)


async def takes_a_refusal_as_final(stage: Stage) -> None:
    """W9. The job is taken by force just before its report, which is answered with 409."""
    job = await stage.echo("late")
    forced: list[Exchange] = []

    async def force_before(exchange: Exchange, forward: Forward) -> Answer | None:
        if exchange.carries(Kind.REPORT, job.id) and not forced:
            forced.append(exchange)
            await stage.client.cancel(job.id, force=True)
        return await forward()

    stage.proxy.treatment = force_before
    await stage.claimed(job)
    report = await stage.until(lambda: stage.told(stage.reports(job)), TAKE_SECONDS)
    if report is None:
        raise NotTested("it never reported on the job: see W7")
    again = await stage.until(
        lambda: next((call for call in stage.reports(job) if call.at > report.at), None),
        WATCH_SECONDS,
    )
    if again is not None:
        raise Failed(
            "its report was refused with 409 lease-lost, and it sent another: such an answer is"
            " final, so forget the job"
        )
    await stage.goes_on()


async def reads_each_answer_of_a_sync(stage: Stage) -> None:
    """W15. Of many jobs that come at once, one is taken by force before its report."""
    await stage.client.pause_queue(stage.queues[0])
    jobs = [await stage.echo(number) for number in range(MANY)]
    victim = jobs[MANY // 2]
    forced: list[Exchange] = []

    async def force_before(exchange: Exchange, forward: Forward) -> Answer | None:
        if exchange.carries(Kind.REPORT, victim.id) and not forced:
            forced.append(exchange)
            await stage.client.cancel(victim.id, force=True)
        return await forward()

    stage.proxy.treatment = force_before
    await stage.client.resume_queue(stage.queues[0])
    for job in jobs:
        if await stage.until(lambda job=job: stage.told(stage.reports(job)), TAKE_SECONDS) is None:
            raise NotTested(f"of {MANY} jobs that waited, some were never reported: see W7")
    if not any(exchange.is_sync for exchange in stage.traffic.exchanges):
        raise NotTested("it makes single calls, which is right unless it is very busy")
    for job in jobs:
        now = await stage.client.get(job.id)
        if job is not victim and (now.status, now.attempt) != (Status.SUCCEEDED, 1):
            raise Failed(
                f"one report in a sync was refused, and its neighbour is {now.status} after"
                f" {now.attempt} attempts: each item has an answer of its own"
            )
    if await stage.until(lambda: len(stage.reports(victim)) > 1, WATCH_SECONDS):
        raise Failed("a report in a sync was refused with 409 lease-lost, and it sent another")
    await stage.goes_on()
