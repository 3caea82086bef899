"""The trail and the counters: what a transaction changed, written once, just before its commit."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from compute_orchestrator.db.sessions import Statement, WriteSession
from compute_orchestrator.db.statements.rows import batch
from compute_orchestrator.domain.lifecycle import Step

WRITE_EVENTS = Statement(
    sqlite="""
        INSERT INTO job_events (
            job_id, action, from_status, to_status, actor, reason, attempt, at, lease_token)
        SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4,
               value ->> 5, value ->> 6, value ->> 7, value ->> 8
          FROM json_each(:events)
         ORDER BY key
    """,
)

WRITE_DELTAS = Statement(
    sqlite="""
        INSERT INTO stat_deltas (at, queue, action, from_place, to_place, count, waited, ran)
        SELECT :now, value ->> 0, value ->> 1, value ->> 2, value ->> 3,
               value ->> 4, value ->> 5, value ->> 6
          FROM json_each(:deltas)
    """,
)


@dataclass(frozen=True, slots=True)
class Move:
    """What the counters tell apart. A place is a status, `delayed`, or `none` before the create."""

    queue: str
    action: str
    from_place: str
    to_place: str


async def write_trail(session: WriteSession) -> None:
    """Write the steps that are not written yet: a row each, and a sum for each kind of move."""
    steps = session.take_unwritten()
    if not steps:
        return
    await session.run(WRITE_EVENTS, events=batch(map(_event, steps)))
    count: Counter[Move] = Counter()
    waited: Counter[Move] = Counter()
    ran: Counter[Move] = Counter()
    for step in steps:
        move = _move(step)
        count[move] += 1
        waited[move] += step.waited
        ran[move] += step.ran
    await write_deltas(session, count, waited, ran)


async def write_deltas(
    session: WriteSession,
    count: Mapping[Move, int],
    waited: Mapping[Move, int] | None = None,
    ran: Mapping[Move, int] | None = None,
) -> None:
    """Append to the counters. `waited` and `ran` are sums in microseconds."""
    await session.run(
        WRITE_DELTAS,
        deltas=batch(_delta(move, n, waited or {}, ran or {}) for move, n in count.items()),
    )


def _delta(
    move: Move, count: int, waited: Mapping[Move, int], ran: Mapping[Move, int]
) -> Iterable[object]:
    return (
        move.queue,
        move.action,
        move.from_place,
        move.to_place,
        count,
        waited.get(move, 0),
        ran.get(move, 0),
    )


def _move(step: Step) -> Move:
    return Move(
        queue=step.queue,
        action=step.action,
        from_place="delayed" if step.delayed_from else (step.from_status or "none"),
        to_place="delayed" if step.delayed_to else step.to_status,
    )


def _event(step: Step) -> Iterable[object]:
    return (
        step.job_id,
        step.action,
        step.from_status,
        step.to_status,
        step.actor,
        step.reason,
        step.attempt,
        step.at,
        step.lease_token,
    )
