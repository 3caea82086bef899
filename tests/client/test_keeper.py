"""The keeper of a worker's leases, against a server that answers as the test says."""

import asyncio
from collections.abc import AsyncGenerator, Callable

import pytest

from compute_orchestrator.client.context import Note, Notes
from compute_orchestrator.client.errors import (
    CallTimedOut,
    Conflict,
    InternalError,
    NotFound,
    UnusableAnswer,
    ValidationFailed,
)
from compute_orchestrator.client.keeper import Keeper, Lease
from compute_orchestrator.client.observer import Observer
from compute_orchestrator.client.presence import Presence
from tests.client.fakes import INVALID, LOST, FakeClient, a_while, claimed


class Held(Lease):
    """A lease that remembers what it was told."""

    def __init__(self, number: int = 7, lease_seconds: int = 1) -> None:
        super().__init__(claimed(number, lease_seconds=lease_seconds), now())
        self.told: list[str] = []

    def lose(self) -> None:
        super().lose()
        self.told.append("lost")

    def cancel(self) -> None:
        self.told.append("cancel")


def now() -> float:
    return asyncio.get_running_loop().time()


@pytest.fixture
def server() -> FakeClient:
    return FakeClient()


@pytest.fixture
async def keeper(server: FakeClient) -> AsyncGenerator[Keeper]:
    keeper = Keeper(server.as_client, "w", Presence(Observer()))
    running = asyncio.create_task(keeper.run())
    yield keeper
    running.cancel()
    await asyncio.wait({running})


@pytest.fixture
def hold(keeper: Keeper) -> Callable[..., tuple[Held, Notes]]:
    def hold(number: int = 7, lease_seconds: int = 1) -> tuple[Held, Notes]:
        lease, notes = Held(number, lease_seconds), Notes()
        keeper.keep(lease)
        keeper.listen_to(lease, notes)
        return lease, notes

    return hold


Hold = Callable[..., tuple[Held, Notes]]


async def test_one_call_beats_for_all_that_is_due_and_for_what_soon_will_be(
    server: FakeClient, keeper: Keeper
) -> None:
    begun = now()
    for number in range(1, 41):
        lease = Held(number)
        lease.due = begun + (0.35 if number % 2 else 0.3)
        keeper.keep(lease)
    keeper.keep(Held(41, lease_seconds=50))
    call = await server.next()
    assert now() - begun >= 0.3
    assert set(call.ids) == set(range(1, 41))
    call.answer()
    second = await server.next()
    assert set(second.ids) == set(range(1, 41))


async def test_what_is_let_go_is_not_kept_alive(
    server: FakeClient, keeper: Keeper, hold: Hold
) -> None:
    gone, _ = hold(1)
    hold(2)
    keeper.let_go(gone)
    call = await server.next()
    assert call.ids == [2]


async def test_the_answer_to_a_beat_of_what_was_let_go_meanwhile_is_of_no_interest(
    server: FakeClient, keeper: Keeper, hold: Hold
) -> None:
    """Its report was answered; the beat came second, and found no lease."""
    lease, _ = hold(1)
    call = await server.next()
    keeper.let_go(lease)
    call.answer(problems={1: LOST})
    await a_while()
    assert lease.told == []


async def test_a_flush_is_repeated_until_it_is_answered(
    server: FakeClient, keeper: Keeper, hold: Hold
) -> None:
    lease, notes = hold(lease_seconds=50)
    flushed = asyncio.Event()
    notes.write(Note(checkpoint="c"))
    keeper.flush(lease, flushed.set)
    for error in (CallTimedOut("lost"), NotFound("a stranger's", status=404)):
        call = await server.next()
        assert call.heartbeats[0].checkpoint == "c"
        assert not flushed.is_set()
        call.fail(error)
    (await server.next()).answer()
    await asyncio.wait_for(flushed.wait(), 10)
    assert not notes


async def test_a_flush_that_is_refused_is_given_up(
    server: FakeClient, keeper: Keeper, hold: Hold, caplog: pytest.LogCaptureFixture
) -> None:
    lease, notes = hold(lease_seconds=50)
    flushed = asyncio.Event()
    notes.write(Note(checkpoint="c"))
    keeper.flush(lease, flushed.set)
    (await server.next()).answer(problems={7: INVALID})
    await asyncio.wait_for(flushed.wait(), 10)
    assert not notes
    assert "refused progress or checkpoint" in caplog.text
    assert lease.told == []


async def test_a_flush_of_a_lost_lease_is_over(
    server: FakeClient, keeper: Keeper, hold: Hold
) -> None:
    lease, notes = hold(lease_seconds=50)
    flushed = asyncio.Event()
    notes.write(Note(checkpoint="c"))
    keeper.flush(lease, flushed.set)
    (await server.next()).answer(problems={7: LOST})
    await a_while()
    assert lease.told == ["lost"]
    assert not flushed.is_set()


@pytest.mark.parametrize("code", ["lease-lost", "job-not-found"])
async def test_a_lost_lease_ends_the_beats(server: FakeClient, hold: Hold, code: str) -> None:
    lost, _ = hold(1)
    kept, _ = hold(2)
    kept.due = lost.due
    (await server.next()).answer(problems={1: {"status": 409, "code": code}})
    assert (await server.next()).ids == [2]
    assert (lost.told, kept.told) == (["lost"], [])


@pytest.mark.parametrize(
    "error",
    [
        NotFound("a proxy's", status=404),
        Conflict("a stranger's", status=409),
        InternalError("?", status=500),
        UnusableAnswer("<html>"),
        ValidationFailed("no note is to blame", status=422),
        RuntimeError("?"),
    ],
)
async def test_no_other_answer_ends_the_beats(
    server: FakeClient, hold: Hold, error: Exception
) -> None:
    """A proxy may say 404 while a server is exchanged; the lease stands."""
    lease, _ = hold()
    (await server.next()).fail(error)
    (await server.next()).answer(cancel_requested=True)
    await a_while()
    assert lease.told == ["cancel"]


async def test_a_refusal_of_one_beat_that_is_not_the_servers_own_ends_nothing(
    server: FakeClient, hold: Hold
) -> None:
    lease, notes = hold()
    notes.write(Note(progress=1))
    (await server.next()).answer(problems={7: {"status": 403, "code": "unheard-of"}})
    call = await server.next()
    assert call.heartbeats[0].progress == 1
    assert lease.told == []


async def test_a_stalled_call_is_given_up_for_the_next_one(server: FakeClient, hold: Hold) -> None:
    hold()
    stalled = await server.next()
    await server.next()
    assert stalled.said.cancelled()


async def test_one_bad_note_does_not_cost_the_leases_of_its_neighbours(
    server: FakeClient, hold: Hold, caplog: pytest.LogCaptureFixture
) -> None:
    bad, bad_notes = hold(1)
    good, good_notes = hold(2)
    other, _ = hold(3)
    good.due = other.due = bad.due
    bad_notes.write(Note(checkpoint="b\0d"))
    good_notes.write(Note(checkpoint="good"))
    (await server.next()).fail(ValidationFailed("NUL", status=422))
    alone = await server.next()
    assert (alone.ids, alone.is_single) == ([1], True)
    alone.answer(problems={1: INVALID})
    alone = await server.next()
    assert (alone.ids, alone.is_single) == ([2], True)
    alone.answer()
    call = await server.next()
    assert (3 in call.ids, call.is_single) == (True, False)
    assert all(item.checkpoint is None for item in call.heartbeats)
    call.answer()
    assert "refused progress or checkpoint" in caplog.text
    assert (bad.told, good.told, bool(bad_notes)) == ([], [], False)


async def test_saving_often_makes_few_heartbeats(server: FakeClient, hold: Hold) -> None:
    begun = now()
    _, notes = hold()
    notes.write(Note(checkpoint=0), urgent=True)
    beats: list[object] = []
    for number in range(1, 4):
        call = await server.next()
        beats.append(call.heartbeats[0].checkpoint)
        notes.write(Note(checkpoint=number), urgent=True)
        await a_while()
        call.answer()
    assert beats == [0, 1, 2]
    assert now() - begun > 0.5  # the first at once, then about a third of a lease apart


async def test_saving_after_the_lease_is_lost_makes_no_heartbeat(
    server: FakeClient, hold: Hold
) -> None:
    """A thread goes on as long as it likes."""
    lease, notes = hold(lease_seconds=50)
    notes.write(Note(checkpoint=0), urgent=True)
    (await server.next()).answer(problems={7: LOST})
    await a_while()
    assert lease.told == ["lost"]
    notes.write(Note(checkpoint=1), urgent=True)
    await a_while()
    assert server.is_quiet


async def test_a_task_that_blocks_the_loop_is_told_so_once(
    server: FakeClient, hold: Hold, caplog: pytest.LogCaptureFixture
) -> None:
    hold()
    await a_while()
    for _ in range(2):
        end = now() + 0.7
        while now() < end:
            pass
        (await server.next()).answer()
        await a_while()
    assert caplog.text.count("the event loop was blocked") == 1
    assert "process=True" in caplog.text
