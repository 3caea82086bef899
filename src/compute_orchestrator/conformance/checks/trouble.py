"""A server that is busy, away, or newer than the worker: W12 and W14."""

import json
from typing import Any, Final

from compute_orchestrator.client.models import Status
from compute_orchestrator.conformance.proxy import Answer, Forward, busy
from compute_orchestrator.conformance.stage import ECHO, SLEEP, TAKE_SECONDS, Failed, Stage
from compute_orchestrator.conformance.traffic import Exchange, Kind

RETRY_AFTER_SECONDS: Final = 2
ROUNDS: Final = 2
EARLY_SECONDS: Final = 0.2
"""Clocks and timers are not exact."""

AWAY_SECONDS: Final = 4.0
MOST_TRIES: Final = 20
BACK_SECONDS: Final = 15.0

UNHEARD_OF: Final = {"of": ["a", "later", "version"]}


async def is_patient(stage: Stage) -> None:
    """W12. Claims are refused with a Retry-After, then broken off; then the server is back."""
    refused: list[Exchange] = []

    async def refuse(exchange: Exchange, forward: Forward) -> Answer | None:
        if not exchange.carries(Kind.CLAIM):
            return await forward()
        refused.append(exchange)
        return busy(RETRY_AFTER_SECONDS)

    async def break_off(_: Exchange, __: Forward) -> Answer | None:
        return None

    stage.proxy.treatment = refuse
    job = await stage.echo()  # ends a long poll that began before
    seconds = ROUNDS * (RETRY_AFTER_SECONDS + TAKE_SECONDS)
    if await stage.until(lambda: len(refused) > ROUNDS, seconds) is None:
        raise Failed(
            f"its claim was refused with 503 and `Retry-After: {RETRY_AFTER_SECONDS}`, and it did"
            " not ask again: the server says that it will be back"
        )
    _expect_the_wait_asked_for(refused)

    stage.proxy.treatment = break_off
    before = len(stage.traffic.exchanges)
    await stage.until(lambda: False, AWAY_SECONDS)
    tries = len(stage.traffic.exchanges) - before
    if tries > MOST_TRIES:
        raise Failed(
            f"while the server was away it made {tries} calls in {AWAY_SECONDS:.0f} s: wait between"
            " two of them, longer each time up to a limit, and by a random part of it"
        )

    stage.proxy.treatment = _pass
    if await stage.until(lambda: stage.told(stage.reports(job)), BACK_SECONDS) is None:
        raise Failed(f"the server was back for {BACK_SECONDS:.0f} s, and it had not done a job")


async def _pass(_: Exchange, forward: Forward) -> Answer | None:
    return await forward()


def _expect_the_wait_asked_for(refused: list[Exchange]) -> None:
    """Of one claim, where it can be told by its request id; else of one after the other."""
    for number, exchange in enumerate(refused):
        later = refused[number + 1 :]
        same = [other for other in later if _request_id(other) == _request_id(exchange)]
        following = next(iter(same or later), None)
        if following is None or exchange.answered_at is None:
            continue
        waited = following.at - exchange.answered_at
        if waited < RETRY_AFTER_SECONDS - EARLY_SECONDS:
            raise Failed(
                f"its claim was refused with 503 and `Retry-After: {RETRY_AFTER_SECONDS}`, and it"
                f" asked again after {waited:.1f} s"
            )


def _request_id(exchange: Exchange) -> str | None:
    claims = (call for call in exchange.calls if call.kind is Kind.CLAIM)
    return next((call.request_id for call in claims), None)


async def ignores_unknown_fields(stage: Stage) -> None:
    """W14. Every answer says more than this version of the protocol."""

    async def say_more(_: Exchange, forward: Forward) -> Answer | None:
        answer = await forward()
        if answer.status != 200:
            return answer
        return Answer(
            answer.status, answer.headers, json.dumps(_more(json.loads(answer.body))).encode()
        )

    stage.proxy.treatment = say_more
    try:
        await _does_two_jobs(stage)
    except Failed as error:
        raise Failed(
            f"where each answer had a field more, {error}: ignore fields that you do not know"
        ) from None


async def _does_two_jobs(stage: Stage) -> None:
    for name, payload in ((ECHO, {"value": 1}), (SLEEP, {"seconds": 2})):
        job = await stage.done(await stage.create(name, payload))
        if (job.status, job.attempt) != (Status.SUCCEEDED, 1):
            raise Failed(f"a {name} is {job.status} after {job.attempt} attempts")


def _more(answer: dict[str, Any]) -> dict[str, Any]:
    """The answer, and each item of a sync's, with a field that nobody knows."""
    items = {
        name: [_more(item) for item in answer[name]]
        for name in ("reports", "heartbeats", "jobs")
        if name in answer
    }
    return {**answer, **items, "unheard_of": UNHEARD_OF}
