"""The calls that bring jobs and take results away; the server answers as the test says."""

import asyncio
from collections.abc import AsyncGenerator, Sequence

import pytest

from compute_orchestrator.client.ahead import Pace
from compute_orchestrator.client.attempt import Attempt
from compute_orchestrator.client.errors import (
    CallTimedOut,
    ConnectFailed,
    InternalError,
    PayloadTooLarge,
    ValidationFailed,
)
from compute_orchestrator.client.exchange import Exchange, Wishes
from compute_orchestrator.client.models import ClaimedJob
from compute_orchestrator.client.observer import Observer
from compute_orchestrator.client.outbox import MOST_REPORTS, Outbox
from compute_orchestrator.client.presence import Presence
from compute_orchestrator.client.reports import Report
from compute_orchestrator.client.sizes import MOST_BYTES
from tests.client.fakes import INVALID, LOST, Call, FakeClient, a_while, claimed


class Desk:
    """With places for so many; what came and what is over is kept."""

    def __init__(self) -> None:
        self.places = 3
        self.third_seconds = 0.2
        self.running = 0
        self.taken: list[int] = []
        self.over: list[int] = []
        self.is_drained = asyncio.Event()
        self.is_empty = True

    def room(self) -> int:
        return self.places

    def take(self, jobs: Sequence[ClaimedJob]) -> bool:
        self.taken += [job.id for job in jobs]
        return all(job.name == "task" for job in jobs)

    def done(self, attempt: Attempt) -> None:
        self.over.append(attempt.job.id)

    def changed(self) -> None:
        """Nobody waits here."""

    def drained(self) -> None:
        self.is_drained.set()


@pytest.fixture
def server() -> FakeClient:
    return FakeClient()


@pytest.fixture
def desk() -> Desk:
    return Desk()


@pytest.fixture
async def exchange(server: FakeClient, desk: Desk) -> AsyncGenerator[Exchange]:
    exchange = made(server, desk)
    running = asyncio.create_task(exchange.run())
    yield exchange
    running.cancel()
    await asyncio.wait({running})


def made(server: FakeClient, desk: Desk, *, drain: bool = False) -> Exchange:
    about = {"host": "here"}
    wishes = Wishes(worker_id="w", queues=["q"], lease_seconds=None, about=about, drain=drain)
    now = asyncio.get_running_loop().time()
    presence = Presence(Observer())
    return Exchange(server.as_client, wishes, desk, pace=Pace(3, now), presence=presence)


def finished(number: int, result: object = None) -> Attempt:
    attempt = Attempt(claimed(number), None, 0, on_lost=ignored, on_cancel=ignored)
    attempt.report = Report.succeeded(result)
    return attempt


def ignored(_: Attempt) -> None:
    """Somebody else's business."""


def id_of(call: Call) -> str | None:
    assert call.claim is not None
    return call.claim.request_id


@pytest.mark.usefixtures("exchange")
async def test_a_worker_with_nothing_to_say_waits_at_the_server(
    server: FakeClient, desk: Desk
) -> None:
    poll = await server.next()
    assert (poll.ids, poll.about) == ([], {"host": "here"})
    assert poll.claim is not None
    assert (poll.claim.limit, poll.claim.wait_seconds) == (3, 20)
    desk.places = 0
    poll.answer([claimed(1), claimed(2)])
    await a_while()
    assert desk.taken == [1, 2]
    assert server.is_quiet  # there is no room


async def test_results_bring_the_next_jobs_in_the_same_call(
    server: FakeClient, exchange: Exchange, desk: Desk
) -> None:
    poll = await server.next()
    desk.places = 0
    poll.answer([claimed(1)])
    await a_while()
    desk.places = 3
    exchange.report(finished(1, "done"))
    call = await server.next()
    assert call.ids == [1]
    assert call.claim is not None
    assert (call.claim.limit, call.claim.wait_seconds) == (3, None)
    call.answer([claimed(2)])
    await server.next()
    assert (desk.taken, desk.over) == ([1, 2], [1])


async def test_a_result_does_not_wait_for_the_long_poll_and_makes_no_second_claim(
    server: FakeClient, exchange: Exchange, desk: Desk
) -> None:
    poll = await server.next()
    exchange.report(finished(1))
    call = await server.next()
    assert (call.ids, call.claim) == ([1], None)
    exchange.report(finished(2))
    await a_while()
    assert server.is_quiet  # one exchange at a time
    call.answer()
    call = await server.next()
    assert (call.ids, call.claim) == ([2], None)
    call.answer()
    poll.answer([claimed(3)])
    await server.next()
    assert (desk.taken, desk.over) == ([3], [1, 2])


async def test_a_claim_without_an_answer_is_repeated_as_it_was_whichever_call_carries_it(
    server: FakeClient, exchange: Exchange, desk: Desk
) -> None:
    poll = await server.next()
    poll.fail(CallTimedOut("lost"))
    desk.places = 9
    again = await server.next()
    again.fail(InternalError("lost", status=500))
    exchange.report(finished(1))
    report = await server.next()
    assert report.claim is None  # a claim is not repeated before its time
    report.answer()
    third = await server.next()
    third.answer()
    fourth = await server.next()
    assert id_of(poll) == id_of(again) == id_of(third) != id_of(fourth)
    for call in (poll, again, third):
        assert call.claim is not None
        assert call.claim.limit == 3


async def test_results_wait_while_the_server_is_away_and_all_go_when_it_is_back(
    server: FakeClient, exchange: Exchange, desk: Desk
) -> None:
    desk.places = 0
    (await server.next()).answer()
    exchange.report(finished(1))
    (await server.next()).fail(ConnectFailed("refused"))
    exchange.report(finished(2))
    await a_while()
    assert server.is_quiet
    call = await server.next()
    assert call.ids == [1, 2]
    call.answer()
    await a_while()
    assert desk.over == [1, 2]


@pytest.mark.parametrize(
    "error",
    [
        ValidationFailed("no", status=422),
        PayloadTooLarge("no", status=413),
        RuntimeError("not even sent"),
    ],
)
async def test_one_bad_result_does_not_spoil_its_neighbours(
    server: FakeClient, exchange: Exchange, desk: Desk, error: Exception
) -> None:
    """The call with all of them is refused, or can't even be made."""
    desk.places = 0
    (await server.next()).answer()
    for attempt in (finished(1, "good"), finished(2, "b\0d"), finished(3)):
        exchange.report(attempt)
    call = await server.next()
    assert call.ids == [1, 2, 3]
    call.fail(error)
    good = await server.next()
    assert (good.ids, good.is_single) == ([1], True)
    good.answer()
    bad = await server.next()
    assert (bad.ids, bad.is_single) == ([2], True)
    bad.answer(problems={2: INVALID})
    call = await server.next()
    assert (call.ids, call.is_single) == ([2, 3], False)
    assert call.reports[0][1].error is not None  # what it is reported as instead
    call.answer()
    await a_while()
    assert desk.over == [1, 2, 3]


async def test_a_call_that_is_refused_though_nothing_in_it_can_be_to_blame_is_no_busy_loop(
    server: FakeClient, exchange: Exchange, desk: Desk
) -> None:
    desk.places = 0
    (await server.next()).answer()
    exchange.report(finished(1))
    (await server.next()).fail(PayloadTooLarge("a proxy says so", status=413))
    await a_while()
    assert server.is_quiet
    (await server.next()).answer()
    await a_while()
    assert desk.over == [1]


async def test_each_report_is_answered_by_itself(
    server: FakeClient, exchange: Exchange, desk: Desk
) -> None:
    desk.places = 0
    (await server.next()).answer()
    for number in (1, 2, 3):
        exchange.report(finished(number))
    busy = {"status": 503, "code": "store-unavailable", "title": "later"}
    (await server.next()).answer(problems={1: LOST, 2: busy})
    await a_while()
    assert desk.over == [1, 3]
    call = await server.next()
    assert call.ids == [2]


async def test_the_late_report_of_a_lost_lease_is_not_sent(
    server: FakeClient, exchange: Exchange, desk: Desk
) -> None:
    desk.places = 0
    (await server.next()).answer()
    lost = finished(1)
    lost.lose()
    exchange.report(lost)
    exchange.report(finished(2))
    assert (await server.next()).ids == [2]
    assert desk.over == [1]


async def test_a_report_that_may_have_ended_its_lease_is_sent_one_last_time(
    server: FakeClient,
    exchange: Exchange,
    desk: Desk,
    caplog: pytest.LogCaptureFixture,
) -> None:
    desk.places = 0
    (await server.next()).answer()
    attempt = finished(1)
    exchange.report(attempt)
    call = await server.next()
    attempt.lose()  # as a heartbeat says
    call.fail(CallTimedOut("lost"))
    call = await server.next()
    assert call.ids == [1]
    call.fail(CallTimedOut("lost"))
    await a_while()
    assert desk.over == [1]
    assert "whether the report was taken is not known" in caplog.text


async def test_results_that_end_in_a_burst_go_together(
    server: FakeClient, exchange: Exchange, desk: Desk
) -> None:
    (await server.next()).answer()
    await server.next()
    desk.running = 3
    loop = asyncio.get_running_loop()

    def end(number: int) -> None:
        exchange.report(finished(number))
        if number < 3:
            loop.call_soon(end, number + 1)

    end(1)
    assert (await server.next()).ids == [1, 2, 3]


@pytest.mark.usefixtures("exchange")
async def test_a_server_that_does_not_let_it_wait_is_not_asked_at_once_again(
    server: FakeClient,
) -> None:
    for _ in range(3):
        (await server.next()).answer()
        await a_while()
        assert server.is_quiet


@pytest.mark.usefixtures("exchange")
async def test_jobs_that_nobody_here_can_run_are_not_asked_for_at_once_again(
    server: FakeClient,
) -> None:
    (await server.next()).answer([claimed(1, name="unknown")])
    await a_while()
    assert server.is_quiet


async def test_a_long_poll_that_is_stopped_is_asked_what_it_brought(
    server: FakeClient, exchange: Exchange, desk: Desk
) -> None:
    poll = await server.next()
    exchange.stop_claiming()
    call = await server.next()
    assert poll.said.cancelled()
    assert call.claim is not None
    assert (id_of(call), call.claim.limit, call.claim.wait_seconds) == (id_of(poll), 3, None)
    assert exchange.is_claiming
    call.fail(CallTimedOut("lost"))
    call = await server.next()
    assert id_of(call) == id_of(poll)
    call.answer([claimed(1)])
    await a_while()
    assert desk.taken == [1]
    assert not exchange.is_claiming
    assert server.is_quiet


async def test_a_claim_that_is_under_way_with_results_when_it_stops_is_asked_what_it_brought(
    server: FakeClient, exchange: Exchange, desk: Desk
) -> None:
    poll = await server.next()
    desk.places = 0
    poll.answer([claimed(1)])
    await a_while()
    desk.places = 3
    exchange.report(finished(1))
    call = await server.next()
    exchange.stop_claiming()
    assert exchange.is_claiming
    call.fail(CallTimedOut("lost"))
    again = await server.next()
    assert (again.ids, id_of(again)) == ([1], id_of(call))
    again.answer([claimed(2)])
    await a_while()
    assert desk.taken == [1, 2]
    assert not exchange.is_claiming


async def test_a_server_that_goes_away_among_single_reports_gets_the_rest_together(
    server: FakeClient, exchange: Exchange, desk: Desk
) -> None:
    desk.places = 0
    (await server.next()).answer()
    for number in (1, 2, 3):
        exchange.report(finished(number, "result"))
    (await server.next()).fail(PayloadTooLarge("no", status=413))
    call = await server.next()
    assert (call.ids, call.is_single) == ([1], True)
    call.fail(ConnectFailed("refused"))
    call = await server.next()
    assert (sorted(call.ids), call.is_single) == ([1, 2, 3], False)
    call.answer()
    await a_while()
    assert sorted(desk.over) == [1, 2, 3]


async def test_a_claim_that_never_left_is_not_repeated_when_it_stops(
    server: FakeClient, exchange: Exchange
) -> None:
    (await server.next()).fail(ConnectFailed("refused"))
    await a_while()
    exchange.stop_claiming()
    await a_while()
    assert server.is_quiet
    assert not exchange.is_claiming


async def test_a_worker_that_drains_ends_when_a_claim_of_an_idle_worker_brings_nothing(
    server: FakeClient, desk: Desk
) -> None:
    exchange = made(server, desk, drain=True)
    running = asyncio.create_task(exchange.run())
    call = await server.next()
    assert call.claim is not None
    assert call.claim.wait_seconds is None
    desk.is_empty, desk.places = False, 0
    call.answer([claimed(1)])
    await a_while()
    desk.places = 3
    exchange.report(finished(1))
    call = await server.next()
    assert (call.ids, call.claim is None) == ([1], False)
    desk.is_empty = True
    call.answer()  # the claim came with a report, which may have put the job back
    await a_while()
    assert not desk.is_drained.is_set()
    (await server.next()).answer()
    await asyncio.wait_for(desk.is_drained.wait(), 10)
    running.cancel()
    await asyncio.wait({running})


def test_one_call_carries_no_more_than_the_server_takes() -> None:
    outbox = Outbox()
    for number in range(MOST_REPORTS + 1):
        outbox.put(finished(number))
    assert [len(outbox.take()), len(outbox.take()), len(outbox.take())] == [MOST_REPORTS, 1, 0]
    large = "x" * (MOST_BYTES // 2)
    for number in range(3):
        outbox.put(finished(number, large))
    outbox.put(finished(3, 3 * large))
    outbox.put(finished(4, {"text": "small"}))
    taken = [[it.job.id for it in outbox.take()] for _ in range(4)]
    assert taken == [[0, 1], [2], [3], [4]]
