"""`orc submit` of one job: what is sent, what is answered, and the wait for its end."""

import asyncio

import pytest

from tests.api.calls import Api
from tests.cli.orc import Orc, documents, done, refused

EVERYTHING = (
    "--queue q --priority 7 --max-retries 2 --lease-seconds 30 --timeout-seconds 60"
    " --run-at 2026-12-24T18:00:00+01:00 --tag a --tag b --retry-base-seconds 2"
    " --retry-factor 3 --retry-max-seconds 40 --retry-jitter 0.5 --idempotency-key k"
)


async def test_what_is_not_given_is_left_to_the_server_and_the_id_is_the_answer(
    orc: Orc, api: Api
) -> None:
    shown = done(await orc("submit", "resize"))
    by_hand = await api.create("resize")
    made = await api.get({"id": int(shown)})
    assert shown == f"{made['id']}\n"
    assert made | {"id": by_hand["id"]} == by_hand


async def test_every_flag_says_what_it_says(orc: Orc, api: Api) -> None:
    words = EVERYTHING.split()
    (made,) = documents(await orc("submit", "resize", '{"é": [1.5, null]}', *words, "--json"))
    assert made == await api.get(made)
    assert {
        "name": "resize",
        "payload": {"é": [1.5, None]},
        "queue": "q",
        "priority": 7,
        "max_retries": 2,
        "lease_seconds": 30.0,
        "timeout_seconds": 60.0,
        "run_at": "2026-12-24T17:00:00.000000Z",
        "tags": ["a", "b"],
        "retry": {"base_seconds": 2.0, "factor": 3.0, "max_seconds": 40.0, "jitter": 0.5},
    }.items() <= made.items()
    again = await orc("submit", "resize", '{"é": [1.5, null]}', *words)
    assert done(again) == f"{made['id']}\n", "the key says that it is the same job"
    assert "Idempotency-Key" in refused(await orc("submit", "other", *words), 4)


async def test_a_payload_may_come_from_standard_input(orc: Orc) -> None:
    (made,) = documents(await orc("submit", "a", "-", "--json", stdin='"from a pipe"\n'))
    assert made["payload"] == "from a pipe"
    assert len(done(await orc("submit", "a", "--run-in-seconds", "3600"))) > 1


@pytest.mark.parametrize("payload", ["text", "{", "NaN", "-Infinity", "1e999", "[" * 100_000])
async def test_what_is_no_json_is_wrong_usage(orc: Orc, payload: str) -> None:
    refusal = await orc("submit", "a", "-", stdin=payload)
    assert refusal.exit_code == 2
    assert "not JSON" in refusal.stderr
    assert "Traceback" not in refusal.stderr


async def test_what_the_server_does_not_take_is_wrong_usage_with_its_words(orc: Orc) -> None:
    for words, said in {
        "a --queue x/y": "queue: must not have a slash",
        "a --priority 101": "priority: ",
        "a --retry-jitter 2": "retry.jitter: ",
        "a --run-in-seconds 1 --run-at 2030-01-01T00:00:00Z": "can't both be given",
        "a --idempotency-key \x01": "control characters",
    }.items():
        assert said in refused(await orc("submit", *words.split(" ")), 2), words


async def test_one_job_and_a_file_exclude_each_other(orc: Orc) -> None:
    for words in (
        [],
        ["--queue", "q"],
        ["a", "--batch-name", "b"],
        ["a", "--file", "-"],
        ["--file", "-", "--queue", "q"],
        ["--file", "-", "--retry-factor", "2"],
        ["--file", "-", "--wait"],
    ):
        refused(await orc("submit", *words), 2)


async def test_who_waits_is_shown_the_result(orc: Orc, api: Api) -> None:
    waiting = asyncio.create_task(orc("submit", "a", "--wait"))
    lease = await api.claim(wait_seconds=20)
    await api.report(lease, "succeeded", result={"grö": "ße"})
    result = await waiting
    assert done(result) == '{"grö": "ße"}\n'
    assert result.stderr == f"orc: job {lease['id']} is queued\n"


async def test_who_waits_for_a_job_that_fails_is_told_why(orc: Orc, api: Api) -> None:
    waiting = asyncio.create_task(orc("submit", "a", "--wait-seconds", "60", "--json"))
    lease = await api.claim(wait_seconds=20)
    ended = await api.report(lease, "failed", retryable=False, error={"message": "no such user"})
    result = await waiting
    assert (result.exit_code, result.stdout.count("\n")) == (1, 1)
    assert f'"id": {ended["id"]}' in result.stdout

    waiting = asyncio.create_task(orc("submit", "a", "--wait"))
    lease = await api.claim(wait_seconds=20)
    await api.cancel(lease, force=True)
    result = await waiting
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.endswith(f"orc: job {lease['id']} is cancelled\n")


async def test_a_wait_that_is_over_first_is_code_6_and_says_which_job_it_was(
    orc: Orc, api: Api
) -> None:
    result = await orc("submit", "a", "--wait-seconds", "0", "--json")
    (job,) = await api.jobs(include="payload")
    assert result.exit_code == 6
    assert f'"id": {job["id"]}' in result.stdout
    assert f"job {job['id']} (a) was not final within 0 s" in result.stderr
