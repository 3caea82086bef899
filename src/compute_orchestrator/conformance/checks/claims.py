"""How a worker comes by its jobs: W1 to W4."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Final

from compute_orchestrator.client.models import Status
from compute_orchestrator.conformance.proxy import Answer, Forward
from compute_orchestrator.conformance.stage import TAKE_SECONDS, Failed, NotTested, Stage
from compute_orchestrator.conformance.traffic import Call, Exchange, Kind

SETTLE_SECONDS: Final = 0.5
IDLE_SECONDS: Final = 4.0
MOST_IDLE_CLAIMS: Final = 20
REST_SECONDS: Final = 0.1
MOST_WITHOUT_REST: Final = 5
SHORTEST_RELEASE_SECONDS: Final = 1.0


async def takes_only_from_its_queues(stage: Stage) -> None:
    """W1. Both of its queues are served; a job in a third one is left alone."""
    foreign = await stage.echo(queue=f"{stage.queues[0]}-of-others")
    for queue in stage.queues:
        job = await stage.echo(queue=queue)
        if await stage.until(lambda job=job: stage.traffic.claim_of(job.id), TAKE_SECONDS) is None:
            raise Failed(
                f"a job in one of the two queues of ORC_QUEUES was not claimed in"
                f" {TAKE_SECONDS:.0f} s: name them all in `queues`, split at the comma"
            )
        await stage.done(job)
    for call in stage.traffic.calls(Kind.CLAIM):
        queues: list[str] = call.sent.get("queues") or ["default"]
        if strange := set(queues) - set(stage.queues):
            raise Failed(f"it claims from {sorted(strange)}, which ORC_QUEUES does not name")
    if (await stage.client.get(foreign.id)).status != Status.QUEUED:
        raise Failed("it took a job from a queue that ORC_QUEUES does not name")


async def repeats_a_claim_that_was_not_answered(stage: Stage) -> None:
    """W2. The answer that brings its first job is lost on the way."""
    lost: list[Call] = []

    async def lose_the_first_job(exchange: Exchange, forward: Forward) -> Answer | None:
        answer = await forward()
        given = [call for call in exchange.calls if call.jobs]
        if not given or lost:
            return answer
        lost.extend(given)
        return None

    stage.proxy.treatment = lose_the_first_job
    job = await stage.echo()
    if await stage.until(lambda: bool(lost), TAKE_SECONDS) is None:
        raise Failed(f"it did not claim a waiting job of its queue in {TAKE_SECONDS:.0f} s")
    await _expect_the_repeat(stage, lost[0])
    done = await stage.done(job)
    if done.attempt != 1:
        raise Failed(
            f"the job needed {done.attempt} attempts: the lease of the lost answer ran out unused"
        )
    await stage.goes_on()
    _expect_new_request_ids(stage)


async def _expect_the_repeat(stage: Stage, lost: Call) -> None:
    if lost.request_id is None:
        raise Failed(
            "its claims carry no `request_id`: the lease in a lost answer is nobody's until it"
            " runs out, and costs the job a retry"
        )

    def repeat() -> Call | None:
        later = (call for call in stage.traffic.calls(Kind.CLAIM) if call.at > lost.at)
        return next((call for call in later if call.request_id == lost.request_id), None)

    if await stage.until(repeat, TAKE_SECONDS) is None:
        raise Failed(
            "the answer to a claim was lost, and it did not ask again with the same `request_id`:"
            " keep the id until that claim is answered, or the lease in the answer is lost"
        )


def _expect_new_request_ids(stage: Stage) -> None:
    answered: dict[str, float] = {}
    for call in stage.traffic.calls(Kind.CLAIM):
        request_id = call.request_id or ""
        if call.at > answered.get(request_id, call.at):
            raise Failed(
                "it used a `request_id` again after that claim was answered: make a new one for"
                " each claim"
            )
        if call.answered_at is not None and call.status in (200, 204):
            answered[request_id] = call.answered_at


async def waits_for_work(stage: Stage) -> None:
    """W3. There is nothing to do: it asks seldom, or waits in a long poll."""
    await stage.until(lambda: False, SETTLE_SECONDS)
    before = len(stage.traffic.calls(Kind.CLAIM))
    await stage.until(lambda: False, IDLE_SECONDS)
    claims = stage.traffic.calls(Kind.CLAIM)[before:]
    if len(claims) > MOST_IDLE_CLAIMS or _without_rest(claims) > MOST_WITHOUT_REST:
        raise Failed(
            f"with nothing to do it made {len(claims)} claims in {IDLE_SECONDS:.0f} s: let a claim"
            " wait with `wait_seconds`, or wait up to a second between two of them"
        )
    await stage.goes_on()


def _without_rest(claims: Sequence[Call]) -> int:
    """How many came right after one that was answered at once. On a busy machine a worker that
    never rests does not come to many, but they are all of this kind.
    """
    return sum(
        claim.answered_at is not None
        and (claim.sent.get("wait_seconds") or 0) < 1
        and following.at - claim.answered_at < REST_SECONDS
        for claim, following in pairwise(claims)
    )


async def hands_back_unknown_names(stage: Stage) -> None:
    """W4. A newer worker may know the name."""
    job = await stage.create("conformance.unknown-to-all")
    await stage.claimed(job)
    report = await stage.until(lambda: stage.told(stage.reports(job)), TAKE_SECONDS)
    if report is None:
        raise Failed("it claimed a job whose name it does not know, and never reported on it")
    if report.sent.get("status") != "queued":
        raise Failed(
            f"it reported a job whose name it does not know as {report.sent.get('status')!r}: hand"
            " it back as `queued`, for a worker that knows it"
        )
    if (report.sent.get("run_in_seconds") or 0) < SHORTEST_RELEASE_SECONDS:
        raise Failed(
            "it handed back a job whose name it does not know without a `run_in_seconds`, so that"
            " it comes straight back: 10 is a good one"
        )
    if report.status != 200:
        raise NotTested(f"its report was refused with {report.status}")
    await stage.goes_on()
