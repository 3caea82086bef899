"""The coalescer: many waiting calls, one transaction; each caller its own answer or its own error.

What arrives while the last commit runs is carried by the next turn. Alone, a call waits for
nobody. Every caller waits for its own commit: nothing is answered before it is durable.

A *turn* is one transaction; a *batch* the calls of one operation in it.
"""

import asyncio
import logging
import math
from collections import deque
from collections.abc import Awaitable, Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from compute_orchestrator.db.sessions import WriteSession
from compute_orchestrator.db.statements.trail import write_trail
from compute_orchestrator.domain.errors import (
    OrchestratorError,
    Overloaded,
    ShuttingDown,
    StoreUnavailable,
    Unavailable,
)
from compute_orchestrator.services.transactions import TROUBLE, Transactions

logger = logging.getLogger(__name__)

Item = TypeVar("Item")
Answer = TypeVar("Answer")

LARGEST_BATCH_WEIGHT = 1_000
"""In items: a call may have several."""
LARGEST_BATCH_SIZE = 4 * 1024 * 1024
"""In characters of JSON: of ASCII that is bytes."""
VITAL_FACTOR = 2
"""How far beyond the bound heartbeats and reports are still let in: overload must cost no lease."""
STUCK_FACTOR = 3
"""After so many times the bound a call that runs is told that its outcome is not known."""
LOOKS = 10
"""How often within the longest wait it is looked for calls that wait too long."""
LET_GO_SECONDS = 1.0
"""For a cancelled turn to let go of its connection; a store that stands still may never do so."""


def _no_subject(_item: Any) -> Hashable | None:
    return None


def _no_size(_item: Any) -> int:
    return 0


def _one(_item: Any) -> int:
    return 1


@dataclass(frozen=True, eq=False)
class Operation(Generic[Item, Answer]):
    """A named operation on a batch.

    `run` answers each item, in order, with its answer or with the error that it alone gets.
    `rank` orders the operations of a turn. `vital` ones are refused last. `subject` names what two
    items of one batch must not share; `size` is the length of an item's JSON, in characters;
    `weight` for how many rows it stands.
    """

    name: str
    rank: int
    run: Callable[[WriteSession, Sequence[Item]], Awaitable[Sequence[Answer | OrchestratorError]]]
    vital: bool = False
    subject: Callable[[Item], Hashable | None] = _no_subject
    size: Callable[[Item], int] = _no_size
    weight: Callable[[Item], int] = _one


@dataclass(eq=False, slots=True)
class Call:
    """One caller that waits. A caller that went away has cancelled its future."""

    item: Any
    answer: asyncio.Future[Any]
    since: float
    subject: Hashable | None
    size: int
    weight: int
    leads: bool
    """Whether it is the first of its caller's: a caller with many items waits once."""

    def settle(self, outcome: Any) -> None:
        if self.answer.done():
            return
        if isinstance(outcome, BaseException):
            self.answer.set_exception(outcome)
        else:
            self.answer.set_result(outcome)


Batch = tuple[Operation[Any, Any], list[Call]]


def _refuse(turn: Sequence[Batch], detail: str, *, since: float = math.inf) -> None:
    """Nobody knows whether this turn took effect: who called until `since` is to ask again."""
    for _, calls in turn:
        for call in calls:
            if call.since <= since:
                call.settle(StoreUnavailable(detail))


@dataclass(eq=False)
class Lane:
    """The calls that share a writer, in the order of their arrival, by operation."""

    waiting: dict[Operation[Any, Any], deque[Call]] = field(default_factory=dict)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    idle: asyncio.Event = field(default_factory=asyncio.Event)
    turns: list[list[Batch]] = field(default_factory=list["list[Batch]"])
    """What the transactions in flight carry."""
    callers: int = 0
    """How many wait. One with many items, of which the first has left, counts no more."""

    def add(self, operation: Operation[Any, Any], call: Call) -> None:
        self.waiting.setdefault(operation, deque()).append(call)
        self.callers += call.leads
        self.idle.clear()
        self.arrived.set()

    def oldest(self) -> float | None:
        return min((calls[0].since for calls in self.waiting.values() if calls), default=None)

    def refuse_waiting(
        self, error: Callable[[], Unavailable], until: Callable[[Operation[Any, Any]], float]
    ) -> None:
        """Refuse the calls that came before that time of their operation. None was written."""
        for operation, calls in self.waiting.items():
            while calls and calls[0].since <= until(operation):
                call = calls.popleft()
                self.callers -= call.leads
                call.settle(error())

    def take_turn(self) -> list[Batch]:
        """What the next transaction carries, in the order in which it runs."""
        turn: list[Batch] = []
        for operation in sorted(self.waiting, key=lambda operation: operation.rank):
            batch = self._take_batch(self.waiting[operation])
            if batch:
                turn.append((operation, batch))
        if not any(self.waiting.values()):
            self.arrived.clear()
        return turn

    def _take_batch(self, waiting: deque[Call]) -> list[Call]:
        """The first calls that fit, without two of one subject; the others keep their order."""
        batch: list[Call] = []
        subjects: set[Hashable] = set()
        put_off: list[Call] = []
        size = weight = 0
        while waiting:
            call = waiting[0]
            size_with, weight_with = size + call.size, weight + call.weight
            if batch and (size_with > LARGEST_BATCH_SIZE or weight_with > LARGEST_BATCH_WEIGHT):
                break
            waiting.popleft()
            if call.subject is not None and call.subject in subjects:
                put_off.append(call)
                continue
            self.callers -= call.leads
            if call.answer.done():  # its caller went away
                continue
            subjects.add(call.subject)
            size, weight = size_with, weight_with
            batch.append(call)
        waiting.extendleft(reversed(put_off))
        return batch


STUCK = "The store stands still. Whether this call took effect is not known: ask again."


def _overloaded() -> Overloaded:
    return Overloaded("Too many calls wait for the store.")


def _shutting_down() -> ShuttingDown:
    return ShuttingDown("The server is shutting down.")


async def _outcome(call: Call) -> Any:
    try:
        return await call.answer
    except Unavailable:
        raise
    except OrchestratorError as error:
        return error
    except Exception:
        logger.exception("an item failed")
        return OrchestratorError("The server failed over this item. The log says more.")


def _in_order_of_subjects(call: Call) -> tuple[bool, Any]:
    """The subjects of one operation are all of one kind; who has none comes last."""
    return call.subject is None, call.subject


class Coalescer:
    """Admits calls, and carries them in turns until it is closed.

    `one_writer` is the store's trait: one lane for all operations where there is one writer, else
    a lane an operation with `width` transactions in flight.
    """

    def __init__(
        self,
        transactions: Transactions,
        *,
        one_writer: bool,
        max_waiting_calls: int,
        max_waiting_seconds: float,
        width: int = 2,
    ) -> None:
        self._transactions = transactions
        self._one_writer = one_writer
        self._width = 1 if one_writer else width
        self._max_waiting_calls = max_waiting_calls
        self._max_waiting_seconds = max_waiting_seconds
        self._loop = asyncio.get_running_loop()
        self._next_look: asyncio.TimerHandle | None = None
        self._lanes: dict[Hashable, Lane] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing = False

    async def submit(self, operation: Operation[Item, Answer], item: Item) -> Answer:
        """Have an item carried by one of the next turns.

        A caller that is cancelled while its item waits takes it out; once its turn runs, the turn
        is finished without it. Raises the item's own error, or Unavailable.
        """
        (call,) = self._add(operation, [item])
        return await call.answer

    async def submit_many(
        self, operation: Operation[Item, Answer], items: Sequence[Item]
    ) -> list[Answer | OrchestratorError]:
        """The same for many items of one caller: to each its answer or its own error, in order.

        Raises Unavailable; what became of each item is not known then.
        """
        calls = self._add(operation, items)
        try:
            return [await _outcome(call) for call in calls]
        except BaseException:
            for call in calls:
                if not call.answer.cancel() and not call.answer.cancelled():
                    call.answer.exception()  # seen, so that nobody logs it as forgotten
            raise

    def _add(self, operation: Operation[Item, Answer], items: Sequence[Item]) -> list[Call]:
        lane = self._lane(operation)
        now = self._loop.time()
        self._admit(operation, lane, now)
        calls = [
            Call(
                item,
                self._loop.create_future(),
                now,
                operation.subject(item),
                operation.size(item),
                operation.weight(item),
                leads=number == 0,
            )
            for number, item in enumerate(items)
        ]
        for call in calls:
            lane.add(operation, call)
        if self._next_look is None:
            self._look_later()
        return calls

    async def close(self, deadline_seconds: float) -> None:
        """Admit nothing more, carry what waits, stop."""
        self._closing = True
        try:
            async with asyncio.timeout(deadline_seconds):
                for lane in self._lanes.values():
                    await lane.idle.wait()
        except TimeoutError:
            logger.warning("calls still wait at shutdown and are refused")
        self.refuse_all()
        if self._next_look is not None:
            self._next_look.cancel()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=LET_GO_SECONDS)

    def refuse_all(self) -> None:
        """Admit nothing more, and answer every caller now, whatever becomes of its call."""
        self._closing = True
        for lane in self._lanes.values():
            lane.refuse_waiting(_shutting_down, lambda _: math.inf)
            for turn in lane.turns:
                _refuse(turn, "The server stopped in the middle of this call.")

    def _look_later(self) -> None:
        wait = self._max_waiting_seconds / LOOKS
        self._next_look = self._loop.call_later(wait, self._look)

    def _look(self) -> None:
        """Answer who has waited too long: a store that stands still holds no caller for ever."""
        now = self._loop.time()
        self._next_look = None
        for lane in self._lanes.values():
            lane.refuse_waiting(_overloaded, lambda it: now - self._longest_wait(it))
            for turn in lane.turns:
                _refuse(turn, STUCK, since=now - STUCK_FACTOR * self._max_waiting_seconds)
        if any(lane.turns or any(lane.waiting.values()) for lane in self._lanes.values()):
            self._look_later()

    def _longest_wait(self, operation: Operation[Any, Any]) -> float:
        return (VITAL_FACTOR if operation.vital else 1) * self._max_waiting_seconds

    def _lane(self, operation: Operation[Any, Any]) -> Lane:
        key: Hashable = "writer" if self._one_writer else operation
        lane = self._lanes.get(key)
        if lane is None:
            lane = self._lanes[key] = Lane()
            for number in range(self._width):
                name = f"lane {operation.name if not self._one_writer else key} {number}"
                self._tasks.add(asyncio.create_task(self._carry(lane), name=name))
        return lane

    def _admit(self, operation: Operation[Any, Any], lane: Lane, now: float) -> None:
        if self._closing:
            raise _shutting_down()
        factor = VITAL_FACTOR if operation.vital else 1
        oldest = lane.oldest()
        age = 0.0 if oldest is None else now - oldest
        if lane.callers >= factor * self._max_waiting_calls or age >= self._longest_wait(operation):
            raise _overloaded()

    async def _carry(self, lane: Lane) -> None:
        while True:
            turn = lane.take_turn()
            if turn:
                lane.turns.append(turn)
                try:
                    await self._run_turn(turn)
                finally:
                    lane.turns.remove(turn)
            else:
                if not lane.turns:
                    lane.idle.set()
                await lane.arrived.wait()

    async def _run_turn(self, turn: Sequence[Batch]) -> None:
        try:
            outcomes = await self._outcomes(turn)
        except asyncio.CancelledError:
            _refuse(turn, "The server stopped in the middle of this call.")
            raise
        except StoreUnavailable as error:
            _refuse(turn, error.detail)
        except Exception:
            logger.exception("a turn failed as a whole")
            _refuse(turn, "The server failed in the middle of this call.")
        else:
            for call, outcome in outcomes:
                call.settle(outcome)

    async def _outcomes(self, turn: Sequence[Batch]) -> list[tuple[Call, Any]]:
        """What came of each call, committed. Raises StoreUnavailable when nothing is known."""
        try:
            return await self._together(turn)
        except StoreUnavailable:
            raise
        except Exception:
            logger.warning("a turn failed over its data; its calls run one by one", exc_info=True)
        return await self._one_by_one(turn)

    async def _together(self, turn: Sequence[Batch]) -> list[tuple[Call, Any]]:
        outcomes: list[tuple[Call, Any]] = []
        async with self._transactions.write() as session:
            for operation, calls in turn:
                answers = await operation.run(session, [call.item for call in calls])
                outcomes.extend(zip(calls, answers, strict=True))
        return outcomes

    async def _one_by_one(self, turn: Sequence[Batch]) -> list[tuple[Call, Any]]:
        """Each item in a savepoint of its own: the poison alone gets the error."""
        outcomes: list[tuple[Call, Any]] = []
        async with self._transactions.write() as session:
            for operation, calls in turn:
                # Rows are locked in one order, here as in a batch, or replicas would deadlock.
                for call in sorted(calls, key=_in_order_of_subjects):
                    try:
                        async with session.savepoint():
                            (answer,) = await operation.run(session, [call.item])
                            await write_trail(session)
                    except TROUBLE as error:
                        # In other trouble SQLite may have ended the whole transaction.
                        if not self._transactions.is_fault_of_data(error):
                            raise
                        answer = error
                    except Exception as error:  # noqa: BLE001 - it is this call's answer
                        answer = error
                    outcomes.append((call, answer))
        return outcomes
