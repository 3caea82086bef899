"""The coalescer: who shares a transaction, in which order, and whose answer is whose."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from sqlalchemy.exc import IntegrityError

from compute_orchestrator.db.sessions import WriteSession
from compute_orchestrator.domain.errors import JobNotFound, OrchestratorError
from compute_orchestrator.services import ranks
from compute_orchestrator.services.coalescer import (
    LARGEST_BATCH_SIZE,
    LARGEST_BATCH_WEIGHT,
    Coalescer,
    Operation,
)
from compute_orchestrator.services.transactions import Transactions
from compute_orchestrator.services.wakeups import Wakeups
from tests.services.fakes import Notes, Turn, called, hold, noted, submit
from tests.store.house import House

MIB = 1024 * 1024


class Counting(Transactions):
    """Counts the transactions that were begun."""

    begun = 0

    @asynccontextmanager
    async def write(self) -> AsyncGenerator[WriteSession]:
        self.begun += 1
        async with super().write() as session:
            yield session


def coalescer_on(transactions: Transactions, *, one_writer: bool = True) -> Coalescer:
    return Coalescer(
        transactions, one_writer=one_writer, max_waiting_calls=2_000, max_waiting_seconds=5
    )


async def test_alone_a_call_waits_for_nobody(house: House) -> None:
    notes = Notes()
    assert await house.coalescer.submit(notes.operation, "a") == "noted a"
    assert notes.batches == [["a"]]


async def test_what_arrives_during_a_turn_shares_the_next_one(house: House) -> None:
    transactions = Counting(house.store, Wakeups())
    coalescer = coalescer_on(transactions)
    notes = Notes()
    first = await hold(coalescer, notes)
    names = [f"caller {number}" for number in range(20)]
    callers = submit(coalescer, notes, names)
    await called()
    notes.go.set()
    assert await first == "noted first"
    assert await asyncio.gather(*callers) == [f"noted {name}" for name in names]
    assert notes.batches == [["first"], names]
    assert transactions.begun == 2
    await coalescer.close(5)


async def test_a_caller_that_has_its_answer_can_be_seen_by_everybody(house: House) -> None:
    """From another connection, at the moment of the answer: nothing is told before its commit."""
    notes = Notes()
    seen: dict[str, set[str]] = {}

    async def call(name: str) -> None:
        await house.coalescer.submit(notes.operation, name)
        seen[name] = await noted(house)

    await asyncio.gather(*(call(f"caller {number}") for number in range(30)))
    assert len(seen) == 30
    assert {name for name, names in seen.items() if name not in names} == set()


# Poison.


async def test_a_poison_item_among_fifty_fails_alone(house: House) -> None:
    notes = Notes()
    await house.coalescer.submit(notes.operation, "poison")
    await hold(house.coalescer, notes)
    names = [f"caller {number}" for number in range(50)]
    names[17] = "poison"
    callers = submit(house.coalescer, notes, names)
    await called()
    notes.go.set()
    answers = await asyncio.gather(*callers, return_exceptions=True)
    assert isinstance(answers[17], IntegrityError)
    assert answers[:17] + answers[18:] == [f"noted {name}" for name in names if name != "poison"]
    assert await noted(house) == {"first", *names}
    assert notes.batches[2:] == [names, *([name] for name in names)]


async def test_a_fault_in_the_code_for_one_item_is_that_items_own(house: House) -> None:
    notes = Notes()
    await hold(house.coalescer, notes)
    unnamed: str = None  # pyright: ignore[reportAssignmentType]
    callers = submit(house.coalescer, notes, ["a", unnamed, "b"])
    await called()
    notes.go.set()
    good, bad, other = await asyncio.gather(*callers, return_exceptions=True)
    assert (good, other) == ("noted a", "noted b")
    assert isinstance(bad, AttributeError)
    assert await noted(house) == {"first", "a", "b"}


async def test_a_poison_item_spoils_no_other_operation_of_its_turn(house: House) -> None:
    log: Turn = []
    early, late = Notes("early", rank=1, log=log), Notes("late", rank=99, log=log)
    await house.coalescer.submit(early.operation, "poison")
    await hold(house.coalescer, early)
    before = submit(house.coalescer, early, ["a", "poison"])
    after = submit(house.coalescer, late, ["b"])
    await called()
    early.go.set()
    a, poison, b = await asyncio.gather(*before, *after, return_exceptions=True)
    assert (a, b) == ("noted a", "noted b")
    assert isinstance(poison, IntegrityError)
    assert await noted(house) == {"poison", "first", "a", "b"}


async def test_an_item_that_is_refused_has_its_own_error_in_the_same_turn(house: House) -> None:
    notes = Notes()
    await hold(house.coalescer, notes)
    callers = submit(house.coalescer, notes, ["a", "refused one", "b", "refused two"])
    await called()
    notes.go.set()
    a, one, b, two = await asyncio.gather(*callers, return_exceptions=True)
    assert (a, b) == ("noted a", "noted b")
    assert isinstance(one, JobNotFound)
    assert isinstance(two, JobNotFound)
    assert len(notes.batches) == 2


# Callers that go away.


async def test_a_caller_that_leaves_while_it_waits_takes_its_item_along(house: House) -> None:
    notes = Notes()
    first = await hold(house.coalescer, notes)
    a, b, c = submit(house.coalescer, notes, ["a", "b", "c"])
    await called()
    b.cancel()
    await asyncio.wait([b])
    assert b.cancelled()
    notes.go.set()
    assert await asyncio.gather(first, a, c) == ["noted first", "noted a", "noted c"]
    assert notes.batches == [["first"], ["a", "c"]]
    assert await noted(house) == {"first", "a", "c"}


async def test_a_caller_that_leaves_in_its_turn_lets_it_finish(house: House) -> None:
    notes = Notes()
    await hold(house.coalescer, notes)
    leaver, stayer = submit(house.coalescer, notes, ["leaver", "stayer"])
    await called()
    notes.began.clear()
    notes.go.set()
    await notes.began.wait()
    leaver.cancel()
    assert await stayer == "noted stayer"
    assert leaver.cancelled()
    assert await noted(house) == {"first", "leaver", "stayer"}
    assert await house.coalescer.submit(notes.operation, "next") == "noted next"


async def test_when_all_callers_have_left_there_is_no_turn(house: House) -> None:
    notes = Notes()
    first = await hold(house.coalescer, notes)
    callers = submit(house.coalescer, notes, ["a", "b"])
    await called()
    for caller in callers:
        caller.cancel()
    await asyncio.wait(callers)
    notes.go.set()
    await first
    assert await house.coalescer.submit(notes.operation, "next") == "noted next"
    assert notes.batches == [["first"], ["next"]]


# The order in a turn.


async def test_operations_of_a_turn_run_in_the_order_of_their_ranks(house: House) -> None:
    log: Turn = []
    holder = Notes("holder", log=log)
    kinds = [Notes(f"rank {rank}", rank=rank, log=log) for rank in (30, 10, 40, 20)]
    transactions = Counting(house.store, Wakeups())
    coalescer = coalescer_on(transactions)
    await hold(coalescer, holder)
    callers = [
        caller
        for number in range(2)
        for kind in kinds
        for caller in submit(coalescer, kind, [f"{kind.operation.name} {number}"])
    ]
    await called()
    holder.go.set()
    await asyncio.gather(*callers)
    assert log[1:] == [(f"rank {n}", [f"rank {n} 0", f"rank {n} 1"]) for n in (10, 20, 30, 40)]
    assert transactions.begun == 2
    await coalescer.close(5)


def test_what_keeps_leases_alive_goes_first() -> None:
    order = [ranks.HEARTBEAT, ranks.REPORT, ranks.OPERATE, ranks.REAP, ranks.CREATE, ranks.CLAIM]
    assert order == sorted(set(order))
    assert ranks.CREATE < ranks.PROMOTE < ranks.CLAIM < ranks.HOUSEKEEPING


async def test_a_job_created_in_a_turn_is_claimed_in_it(house: House) -> None:
    """Real operations, called the other way round: the claim comes after the create."""
    notes = Notes()
    await hold(house.coalescer, notes)
    claim = asyncio.create_task(house.claim())
    create = asyncio.create_task(house.create(priority=9))
    await called()
    notes.go.set()
    assert (await claim).id == (await create).id


# What shares a batch.


async def test_a_batch_has_one_item_for_a_subject_and_the_next_waits_its_turn(
    house: House,
) -> None:
    notes = Notes(subjects={"a1": "a", "a2": "a", "a3": "a", "b1": "b", "b2": "b"})
    await hold(house.coalescer, notes)
    callers = submit(house.coalescer, notes, ["a1", "a2", "free", "b1", "a3", "b2", "free too"])
    await called()
    notes.go.set()
    await asyncio.gather(*callers)
    assert notes.batches[1:] == [["a1", "free", "b1", "free too"], ["a2", "b2"], ["a3"]]


async def test_a_batch_has_so_many_calls_and_no_more(house: House) -> None:
    notes = Notes()
    await hold(house.coalescer, notes)
    callers = submit(house.coalescer, notes, map(str, range(LARGEST_BATCH_WEIGHT + 3)))
    await called()
    notes.go.set()
    await asyncio.gather(*callers)
    assert [len(items) for items in notes.batches] == [1, LARGEST_BATCH_WEIGHT, 3]


@pytest.mark.parametrize(
    ("sizes", "batches"),
    [
        ([3 * MIB, MIB, 1], [2, 1]),
        ([MIB, MIB, MIB, MIB, MIB], [4, 1]),
        ([0, LARGEST_BATCH_SIZE, 0], [3]),
        ([1, LARGEST_BATCH_SIZE, 1], [1, 1, 1]),
        ([1, LARGEST_BATCH_SIZE + 1, 1], [1, 1, 1]),
        ([16 * MIB, 16 * MIB], [1, 1]),
    ],
)
async def test_a_batch_has_so_many_bytes_and_a_large_call_goes_alone(
    house: House, sizes: list[int], batches: list[int]
) -> None:
    names = [f"{number}" for number in range(len(sizes))]
    notes = Notes(sizes=dict(zip(names, sizes, strict=True)))
    await hold(house.coalescer, notes)
    callers = submit(house.coalescer, notes, names)
    await called()
    notes.go.set()
    await asyncio.gather(*callers)
    assert [len(items) for items in notes.batches[1:]] == batches
    assert [name for items in notes.batches[1:] for name in items] == names


async def test_with_many_writers_an_operation_waits_for_no_other(house: House) -> None:
    """The trait of a store that takes several writers: a lane an operation, two turns in each."""

    class ManyWriters(Transactions):
        @asynccontextmanager
        async def write(self) -> AsyncGenerator[WriteSession]:
            async with house.store.reading() as (session, _):
                yield WriteSession(session, dialect=house.store.dialect, now=None, alone=False)

    began, go = asyncio.Queue[str](), asyncio.Event()

    async def answer(_: WriteSession, items: Sequence[str]) -> Sequence[str]:
        return items

    async def answer_late(_: WriteSession, items: Sequence[str]) -> Sequence[str]:
        began.put_nowait(items[0])
        await go.wait()
        return items

    coalescer = coalescer_on(ManyWriters(house.store, Wakeups()), one_writer=False)
    held, free = Operation("held", 1, answer_late), Operation("free", 2, answer)
    callers: list[asyncio.Task[str]] = []
    for item in ("first", "second"):
        callers.append(asyncio.create_task(coalescer.submit(held, item)))
        assert await began.get() == item
    callers.append(asyncio.create_task(coalescer.submit(held, "third")))
    assert await coalescer.submit(free, "a") == "a"
    assert began.empty()
    closing = asyncio.create_task(coalescer.close(60))
    go.set()
    assert await asyncio.gather(*callers) == ["first", "second", "third"]
    await closing


# Many items of one caller.


async def test_a_caller_with_many_items_gets_to_each_its_answer_or_its_own_error(
    house: House,
) -> None:
    notes = Notes()
    await house.coalescer.submit(notes.operation, "poison")
    items = ["a", "refused b", "poison", "c"]
    answers = await house.coalescer.submit_many(notes.operation, items)
    assert (answers[0], answers[3]) == ("noted a", "noted c")
    assert isinstance(answers[1], JobNotFound)
    assert isinstance(answers[2], OrchestratorError)
    assert answers[2].code == "internal-error"
    assert await noted(house) == {"poison", "a", "c"}


async def test_items_of_one_subject_are_taken_one_after_the_other(house: House) -> None:
    notes = Notes(subjects={"a1": "a", "a2": "a"})
    answers = await house.coalescer.submit_many(notes.operation, ["a1", "a2", "b"])
    assert answers == ["noted a1", "noted a2", "noted b"]
    assert notes.batches == [["a1", "b"], ["a2"]]


async def test_a_caller_with_many_items_waits_as_one(house: House) -> None:
    """A busy worker's reports must not keep a producer out."""
    notes = Notes()
    first = await hold(house.coalescer, notes)
    many = asyncio.create_task(
        house.coalescer.submit_many(notes.operation, [f"item {n}" for n in range(5_000)])
    )
    await called()
    single = asyncio.create_task(house.coalescer.submit(notes.operation, "single"))
    await called()
    notes.go.set()
    await first
    assert await single == "noted single"
    assert (await many)[-1] == "noted item 4999"


async def test_a_caller_with_many_items_that_goes_away_takes_out_those_that_wait(
    house: House,
) -> None:
    notes = Notes()
    first = await hold(house.coalescer, notes)
    many = asyncio.create_task(house.coalescer.submit_many(notes.operation, ["a", "b"]))
    await called()
    many.cancel()
    await asyncio.wait({many})
    notes.go.set()
    await first
    assert await house.coalescer.submit(notes.operation, "after") == "noted after"
    assert notes.batches == [["first"], ["after"]]


async def test_a_batch_has_so_many_rows_and_no_more_however_few_calls_they_are(
    house: House,
) -> None:
    notes = Notes()
    heavy = replace(notes.operation, weight=int)
    await hold(house.coalescer, notes)
    callers = [
        asyncio.create_task(house.coalescer.submit(heavy, item))
        for item in ("400", "500", "101", "1001", "1")
    ]
    await called()
    notes.go.set()
    await asyncio.gather(*callers)
    assert notes.batches[1:] == [["400", "500"], ["101"], ["1001"], ["1"]]
