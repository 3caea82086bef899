"""One task called alone: no server, no worker."""

import os

import pytest

from compute_orchestrator.client import Context, Permanent, Retry, Snooze, Worker
from compute_orchestrator.client.calling import CallNext
from compute_orchestrator.client.models import Status
from compute_orchestrator.testing import call_task

app = Worker("http://nobody.example")


@app.task("count")
async def count(job: Context, up_to: int) -> dict[str, int]:
    first = job.checkpoint or 0
    for number in range(first, up_to):
        job.save(number + 1)
        job.progress((number + 1) / up_to, f"number {number + 1}")
    return {"counted": up_to - first, "attempt": job.attempt}


@app.task("hard work", process=True)
def work_hard() -> int:
    return os.getpid()


@app.task("obey")
def obey(word: str) -> str:
    match word:
        case "retry":
            raise Retry("rate limited", in_seconds=30)
        case "snooze":
            raise Snooze(600)
        case "permanent":
            raise Permanent("no such user")
        case "break":
            raise LookupError(word)
        case _:
            return word.upper()


async def test_a_result_comes_back_as_it_would_be_sent() -> None:
    outcome = await call_task(obey, {"word": "hello"})
    assert outcome.result == "HELLO"
    assert outcome.report.status == Status.SUCCEEDED


async def test_a_later_attempt_begins_where_the_checkpoint_says() -> None:
    outcome = await call_task(count, {"up_to": 5}, attempt=2, checkpoint=3)
    assert outcome.report.result == {"counted": 2, "attempt": 2}
    assert outcome.checkpoint == 5
    assert outcome.progress == {"fraction": 1.0, "message": "number 5"}


async def test_what_is_raised_is_what_would_be_reported() -> None:
    retry = await call_task(obey, {"word": "retry"})
    assert (retry.report.status, retry.report.retry_in_seconds) == (Status.FAILED, 30)
    snooze = await call_task(obey, {"word": "snooze"})
    assert (snooze.report.status, snooze.report.run_in_seconds) == (Status.QUEUED, 600)
    permanent = await call_task(obey, {"word": "permanent"})
    assert (permanent.report.status, permanent.report.retryable) == (Status.FAILED, False)
    broken = await call_task(obey, {"word": "break"})
    assert broken.report.error is not None
    assert broken.report.error["type"] == "LookupError"
    with pytest.raises(LookupError, match="break"):
        _ = broken.result


async def test_a_payload_that_does_not_fit_never_comes_to_the_function() -> None:
    outcome = await call_task(count, {"up_to": "many"})
    assert outcome.report.retryable is False
    assert "up_to" in str(outcome.raised)


async def test_middleware_and_the_lifespans_state_are_there_where_they_are_given() -> None:
    @app.task("state")
    async def state(job: Context) -> str:
        return job.state["database"]

    async def shout(job: Context, call_next: CallNext) -> str:
        assert job.name == "state"
        return f"{await call_next()}!"

    outcome = await call_task(state, state={"database": "db"}, middleware=[shout])
    assert outcome.result == "db!"


async def test_a_task_for_a_process_starts_none() -> None:
    assert (await call_task(work_hard)).result == os.getpid()
