"""What the client makes of answers, also of those that no server of ours would give."""

import asyncio
import json
from typing import Any

import httpx
import pytest

from compute_orchestrator.client import ClientError, OrchestratorClient, Patience, Problem, errors
from compute_orchestrator.client.errors import BY_CODE
from compute_orchestrator.client.retries import ONE_TRY, Backoff, parse_retry_after
from compute_orchestrator.domain import errors as server_errors
from tests.client.wires import answering
from tests.conftest import URL
from tests.promises.servers import real_seconds

QUICK = Patience(total_seconds=1.5, first_wait_seconds=0.01, jitter_seconds=0)
JOB: dict[str, Any] = {"id": 1, "queue": "q", "name": "n", "status": "queued"}


def client_of(*answers: httpx.Response, patience: Patience = QUICK) -> OrchestratorClient:
    """A client whose server gives these answers in turn, the last one for ever."""
    left = list(answers)
    transport = answering(lambda _: left.pop(0) if len(left) > 1 else left[0])
    return OrchestratorClient(URL, patience=patience, transport=transport)


def problem(status: int, **fields: object) -> httpx.Response:
    return httpx.Response(status, json={"status": status, "detail": "so it is", **fields})


async def test_unknown_fields_and_statuses_pass() -> None:
    answer = httpx.Response(200, json={**JOB, "status": "blocked", "new": {"a": 1}})
    job = await client_of(answer).get(1)
    assert (job.status, job.is_final) == ("blocked", False)
    assert job.model_extra == {"new": {"a": 1}}


@pytest.mark.parametrize("code", sorted(BY_CODE))
async def test_a_problem_becomes_the_class_of_its_code(code: str) -> None:
    with pytest.raises(BY_CODE[code], match="so it is") as raised:
        await client_of(problem(418, code=code), patience=ONE_TRY).get(1)
    assert (raised.value.status, raised.value.code) == (418, code)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, errors.BadInput),
        (404, errors.NotFound),
        (409, errors.Conflict),
        (410, errors.BadRequest),
        (429, errors.BadRequest),
        (502, errors.ServerFailed),
        (503, errors.Unavailable),
    ],
)
async def test_an_unknown_code_becomes_the_class_of_its_status(
    status: int, kind: type[Problem]
) -> None:
    with pytest.raises(Problem) as raised:
        await client_of(problem(status, code="brand-new"), patience=ONE_TRY).get(1)
    assert (type(raised.value), raised.value.code) == (kind, "brand-new")


def test_the_client_knows_every_code_of_the_server() -> None:
    def below(kind: type[Exception]) -> set[type[Exception]]:
        return {kind}.union(*(below(child) for child in kind.__subclasses__()))

    startup = below(server_errors.StartupError)
    codes = {vars(kind).get("code") for kind in below(server_errors.OrchestratorError) - startup}
    assert codes - {None} <= set(BY_CODE)


async def test_a_page_of_a_proxy_is_a_problem_without_a_code() -> None:
    page = httpx.Response(502, text="<html>Bad Gateway</html>")
    with pytest.raises(errors.ServerFailed) as raised:
        await client_of(page, patience=ONE_TRY).get(1)
    assert (raised.value.code, raised.value.status) == (None, 502)


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(200, text="<html>Welcome</html>"),
        httpx.Response(200, json={"id": "x"}),
        httpx.Response(200, json=[]),
        httpx.Response(204),
        httpx.Response(307, headers={"Location": "https://elsewhere.example"}),
    ],
)
async def test_an_answer_of_another_kind_of_server_is_told_apart(answer: httpx.Response) -> None:
    with pytest.raises(errors.UnusableAnswer):
        await client_of(answer).get(1)


async def test_an_unusable_answer_does_not_tell_the_token() -> None:
    answer = httpx.Response(200, json={**JOB, "lease_token": "secret-token", "locked_by": "w"})
    with pytest.raises(errors.UnusableAnswer) as raised:
        await client_of(answer).claim("w")
    assert "secret-token" not in str(raised.value)


async def test_server_errors_are_asked_again_and_refusals_are_not() -> None:
    passing = [problem(500), problem(502)]
    assert (await client_of(*passing, httpx.Response(200, json=JOB)).get(1)).id == 1
    with pytest.raises(errors.JobNotFound):
        await client_of(problem(404, code="job-not-found"), httpx.Response(200, json=JOB)).get(1)


async def test_the_wait_of_a_503_is_kept() -> None:
    busy = httpx.Response(503, json={"code": "overloaded"}, headers={"Retry-After": "1"})
    client = client_of(busy, httpx.Response(200, json=JOB))
    loop = asyncio.get_running_loop()
    start = loop.time()
    await client.get(1)
    assert loop.time() - start >= 1


async def test_a_wait_longer_than_the_patience_is_left_to_the_caller() -> None:
    busy = httpx.Response(503, json={"code": "overloaded"}, headers={"Retry-After": "900"})
    with pytest.raises(errors.Overloaded) as raised:
        await client_of(busy).get(1)
    assert raised.value.retry_after_seconds == 900


async def test_a_call_is_given_up_when_the_next_try_would_come_too_late() -> None:
    calls: list[str] = []
    patience = Patience(total_seconds=0.5, first_wait_seconds=0.1, jitter_seconds=0)

    def refuse(request: httpx.Request) -> httpx.Response:
        calls.append(request.headers["Idempotency-Key"])
        raise httpx.ConnectError("refused", request=request)

    client = OrchestratorClient(URL, patience=patience, transport=answering(refuse))
    with pytest.raises(errors.ConnectFailed):
        await client.create("resize")
    assert 2 <= len(calls) <= 3  # at 0, 0.1 and 0.3 s; the next would be at 0.7 s
    assert len(set(calls)) == 1


async def test_what_a_long_poll_waited_before_it_failed_is_no_time_of_failure() -> None:
    tries: list[float] = []
    patience = Patience(total_seconds=0.2, first_wait_seconds=0.05, jitter_seconds=0)

    async def cut(request: httpx.Request) -> httpx.Response:
        tries.append(asyncio.get_running_loop().time())
        if len(tries) == 1:
            await real_seconds(0.3)
        raise httpx.ReadError("cut", request=request)

    client = OrchestratorClient(URL, patience=patience, transport=httpx.MockTransport(cut))
    with pytest.raises(errors.ConnectionBroken):
        await client.get(1, wait_seconds=20)
    assert 2 <= len(tries) <= 3  # at once, 0.05 s after that failure, perhaps 0.1 s after the next
    with pytest.raises(errors.ConnectionBroken):
        await client.get(1, wait_seconds=20, patience=ONE_TRY)
    assert len(tries) <= 4


async def test_nothing_but_time_bounds_the_patience() -> None:
    patience = Patience(first_wait_seconds=0, longest_wait_seconds=0, jitter_seconds=0)
    failing = [problem(500) for _ in range(50)]
    client = client_of(*failing, httpx.Response(200, json=JOB), patience=patience)
    assert (await client.get(1)).id == 1


async def test_each_repeat_is_one_plain_line_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    overloaded = problem(503, code="overloaded")
    await client_of(overloaded, httpx.Response(502), httpx.Response(200, json=JOB)).get(1)
    lines = [(it.levelname, it.name, it.getMessage()) for it in caplog.records]
    assert lines == [
        ("WARNING", "compute_orchestrator.client", "GET /jobs/1: 503 overloaded, again in 0.0 s"),
        ("WARNING", "compute_orchestrator.client", "GET /jobs/1: 502, again in 0.0 s"),
    ]


async def test_a_repeat_for_want_of_an_answer_says_so(caplog: pytest.LogCaptureFixture) -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused", request=request)

    patience = Patience(total_seconds=0.5, first_wait_seconds=0.4, jitter_seconds=0)
    client = OrchestratorClient(URL, patience=patience, transport=answering(refuse))
    with pytest.raises(errors.ConnectFailed):
        await client.create("resize")
    assert caplog.messages == ["POST /jobs: no answer, again in 0.4 s"]


async def test_a_long_trail_is_read_page_by_page() -> None:
    event = {"action": "claim", "at": "2026-11-23T21:45:47.000000Z"}
    first = httpx.Response(200, json={"events": [{**event, "id": 1}], "next_cursor": "c"})
    last = httpx.Response(200, json={"events": [{**event, "id": 2}], "next_cursor": None})
    assert [event.id for event in await client_of(first, last).events(1)] == [1, 2]


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (httpx.ConnectTimeout(""), errors.ConnectFailed),
        (httpx.ReadTimeout(""), errors.CallTimedOut),
        (httpx.ReadError(""), errors.ConnectionBroken),
        (httpx.RemoteProtocolError(""), errors.ConnectionBroken),
        (httpx.DecodingError(""), errors.UnusableAnswer),
    ],
)
async def test_no_answer_says_why(fault: httpx.HTTPError, kind: type[ClientError]) -> None:
    def fail(_: httpx.Request) -> httpx.Response:
        raise fault

    client = OrchestratorClient(URL, patience=ONE_TRY, transport=answering(fail))
    with pytest.raises(kind, match=r"^GET http://127\.0\.0\.1:8000/jobs/1: "):
        await client.get(1)


async def test_what_is_no_json_is_refused_before_it_is_sent() -> None:
    sent: list[httpx.Request] = []

    def remember(request: httpx.Request) -> httpx.Response:
        sent.append(request)
        return httpx.Response(201, json=JOB)

    client = OrchestratorClient(URL, transport=answering(remember))
    for payload in (float("nan"), [-float("inf")], "\ud800", {"\ud800": 1}, object()):
        with pytest.raises(ValueError):  # noqa: PT011 - each has words of its own
            await client.create("resize", payload)
    assert sent == []
    await client.create("resize", {"a": 1})
    await client.create("resize", {"ä": "NaN, Infinity"})
    payloads = [json.loads(request.content)["payload"] for request in sent]
    assert payloads == [{"a": 1}, {"ä": "NaN, Infinity"}]


def test_retry_after_is_seconds_or_a_date() -> None:
    assert parse_retry_after("7") == 7
    assert parse_retry_after("Wed, 21 Oct 2015 07:28:00 GMT") == 0
    assert parse_retry_after("soon") is None
    assert parse_retry_after(None) is None


def test_a_backoff_grows_to_its_limit_and_keeps_a_longer_wait_that_was_asked_for() -> None:
    backoff = Backoff(1, 4)
    for longest in (1, 2, 4, 4):
        assert longest / 2 <= backoff.wait() <= longest
    backoff.reset()
    asked = errors.Overloaded("", status=503, retry_after_seconds=3)
    assert backoff.wait_after(asked) == 3
    endless = errors.Overloaded("", status=503, retry_after_seconds=3600)
    assert backoff.wait_after(endless) == 4
