"""`orc jobs`: what is shown, what is done, and the exit codes that a script goes by."""

import asyncio

import pytest

from compute_orchestrator.cli import jobs
from compute_orchestrator.schemas.values import format_moment
from tests.api.calls import Api
from tests.cli.orc import Orc, documents, done, refused
from tests.conftest import World

TOO_MANY = 12_345_678
CREATED = "2026-11-18 11:06:40Z"


async def test_a_list_as_json_is_what_the_server_answers(orc: Orc, api: Api) -> None:
    for number in range(3):
        await api.create(payload={"é": number}, tags=["t"])
    assert documents(await orc("jobs", "list", "--json")) == await api.jobs()
    shown = await orc("jobs", "list", "--json", "--include", "payload", "--order", "oldest")
    assert [job["payload"] for job in documents(shown)] == [{"é": n} for n in range(3)]


async def test_a_list_for_people_is_a_table(orc: Orc, api: Api) -> None:
    job = await api.create(name="resize", queue="images")
    lease = await api.claim(queues=["images"])
    await api.beat(lease, progress={"fraction": 0.4, "message": "page 2"})
    assert done(await orc("jobs", "list")).splitlines() == [
        "ID  STATUS   NAME    QUEUE   ATTEMPT  CREATED               FINISHED  NOTE",
        f"{job['id']}   running  resize  images  1        {CREATED}  -         40% page 2",
    ]
    assert done(await orc("jobs", "list", "--queue", "other")).splitlines() == [
        "ID  STATUS  NAME  QUEUE  ATTEMPT  CREATED  FINISHED  NOTE"
    ]


async def test_every_filter_reaches_the_server(orc: Orc, world: World, api: Api) -> None:
    first = await api.create(name="a", queue="q", tags=["t"])
    await api.claim("me", queues=["q"])
    world.clock.move(60)
    between = format_moment(world.clock.now())
    world.clock.move(60)
    other = await api.create(name="b")
    for words, found in {
        "--status running": first,
        "--status queued --status failed": other,
        "--queue q": first,
        "--name a": first,
        "--tag t": first,
        "--worker-id me": first,
        f"--created-after {between}": other,
        f"--created-before {between}": first,
        "--order oldest --limit 1": first,
        "--limit 1": other,
    }.items():
        shown = done(await orc("jobs", "list", "--ids", *words.split()))
        assert shown == f"{found['id']}\n", words


async def test_a_list_goes_over_as_many_pages_as_it_needs(
    orc: Orc, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "LARGEST_PAGE", 2)
    monkeypatch.setattr(jobs, "DEFAULT_LIMIT", 3)
    ids = [str((await api.create())["id"]) for _ in range(5)]
    assert done(await orc("jobs", "list", "--ids", "--limit", "3")).split() == ids[:1:-1]
    assert done(await orc("jobs", "list", "--ids", "--all")).split() == ids[::-1]


async def test_a_time_without_an_offset_is_wrong_usage(orc: Orc) -> None:
    refusal = await orc("jobs", "list", "--created-after", "2026-01-31T12:00:00")
    assert refusal.exit_code == 2
    assert "has no offset" in refusal.stderr


async def test_a_job_is_shown_whole(orc: Orc, api: Api) -> None:
    lease = await api.started(payload={"width": 3}, tags=["a", "b"], lease_seconds=90)
    await api.report(
        lease,
        "failed",
        retryable=False,
        error={"type": "ValueError", "message": "no", "traceback": "File x\n  line 1\n"},
    )
    assert documents(await orc("jobs", "show", str(lease["id"]), "--json")) == [
        await api.get(lease)
    ]
    shown = done(await orc("jobs", "show", str(lease["id"]))).splitlines()
    for line in (
        "status     failed",
        "tags       a, b",
        "lease      1 min 30 s",
        'payload    {"width": 3}',
        "error      ValueError: no",
        "traceback",
        "    File x",
        "      line 1",
    ):
        assert line in shown
    assert not [line for line in shown if line.startswith(("result", "progress", "checkpoint"))]


async def test_escape_sequences_of_a_payload_do_not_reach_the_terminal(orc: Orc, api: Api) -> None:
    lease = await api.started(payload="\x1b[2J\x9b2J")
    await api.report(lease, "failed", retryable=False, error={"message": "\x1b]0;title\x07\nnext"})
    for words in (["show", str(lease["id"])], ["list"], ["list", "--json"]):
        shown = done(await orc("jobs", *words))
        assert not set(shown) & {"\x1b", "\x07"}, words
        assert "\x9b" not in shown, words


async def test_the_trail_is_shown(orc: Orc, api: Api) -> None:
    lease = await api.started()
    await api.report(lease, "failed", retry_in_seconds=0)
    job_id = str(lease["id"])
    assert documents(await orc("jobs", "events", job_id, "--json")) == await api.events(lease)
    rows = [line.split() for line in done(await orc("jobs", "events", job_id)).splitlines()]
    assert rows[0] == ["AT", "ACTION", "FROM", "TO", "ACTOR", "ATTEMPT", "REASON"]
    assert [row[2:6] for row in rows[1:]] == [
        ["create", "-", "queued", "producer"],
        ["claim", "queued", "running", "w"],
        ["fail", "running", "queued", "w"],
    ]


async def test_what_is_not_there_is_code_3(orc: Orc) -> None:
    for words in (["show"], ["events"], ["cancel"], ["retry"], ["wait"]):
        assert refused(await orc("jobs", *words, str(TOO_MANY)), 3) == (
            f"There is no job {TOO_MANY}."
        )


async def test_a_job_that_can_not_be_cancelled_keeps_none_of_the_others(orc: Orc, api: Api) -> None:
    waiting = await api.create(queue="waiting")
    ended = await api.started()
    await api.report(ended, "succeeded")
    running = await api.started()
    words = [str(job["id"]) for job in (ended, waiting, running)]
    result = await orc("jobs", "cancel", words[0], str(TOO_MANY), *words[1:])
    assert result.exit_code == 4, "the first that could not be done decides"
    assert result.stdout.splitlines() == [
        f"job {waiting['id']} is cancelled",
        f"job {running['id']} is running; its worker will be told to stop",
    ]
    assert [line.startswith("orc: ") for line in result.stderr.splitlines()] == [True, True]
    assert f"job {TOO_MANY}" in result.stderr
    forced = documents(await orc("jobs", "cancel", "--force", "--json", words[2]))
    assert forced == [await api.get(running)]
    assert forced[0]["status"] == "cancelled"


async def test_ids_may_come_from_standard_input(orc: Orc, api: Api) -> None:
    ended = [await api.create() for _ in range(3)]
    for job in ended:
        await api.cancel(job)
    found = done(await orc("jobs", "list", "--status", "cancelled", "--ids"))
    assert done(await orc("jobs", "retry", "-", stdin=found)).splitlines() == [
        f"job {job['id']} is queued" for job in reversed(ended)
    ]


async def test_what_succeeded_is_retried_only_with_again(orc: Orc, api: Api) -> None:
    lease = await api.started()
    await api.report(lease, "succeeded")
    job_id = str(lease["id"])
    refused(await orc("jobs", "retry", job_id), 4)
    assert done(await orc("jobs", "retry", job_id, "--again")) == f"job {job_id} is queued\n"


async def test_what_is_no_id_is_wrong_usage(orc: Orc) -> None:
    for word in ("x", "1.5", "-1", "²"):
        assert (await orc("jobs", "wait", "--", word)).exit_code == 2, word


async def test_a_wait_ends_when_the_jobs_have(orc: Orc, api: Api) -> None:
    first, second = await api.started(), await api.started()
    waiting = asyncio.create_task(orc("jobs", "wait", str(first["id"]), str(second["id"])))
    await api.report(second, "succeeded")
    await api.report(first, "succeeded", result=1)
    assert done(await waiting).splitlines() == [
        f"job {job['id']} succeeded" for job in (first, second)
    ]


async def test_a_wait_ends_with_the_code_of_the_first_that_did_not_succeed(
    orc: Orc, api: Api
) -> None:
    good, bad, open_ = [await api.started() for _ in range(3)]
    await api.report(good, "succeeded")
    await api.report(bad, "failed", retryable=False, error={"type": "E", "message": "no"})
    words = [str(job["id"]) for job in (good, bad, open_)]
    result = await orc("jobs", "wait", "--timeout-seconds", "0", *words)
    assert result.exit_code == 1
    assert result.stdout.splitlines() == [
        f"job {words[0]} succeeded",
        f"job {words[1]} failed: E: no",
    ]
    assert result.stderr == f"orc: job {words[2]} (resize) was not final within 0 s: running\n"
    assert (await orc("jobs", "wait", "--timeout-seconds", "0", words[2])).exit_code == 6
