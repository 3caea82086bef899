"""The trail and the counters: what a transaction changed, written once, just before its commit."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from compute_orchestrator.db.sessions import Statement, WriteSession
from compute_orchestrator.db.statements.rows import CLOCK_POSTGRESQL, batch, moment_postgresql
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
    postgresql=f"""
        INSERT INTO job_events (
            job_id, action, from_status, to_status, actor, reason, attempt, at, lease_token)
        SELECT CAST(value ->> 0 AS bigint), value ->> 1, value ->> 2, value ->> 3, value ->> 4,
               value ->> 5, CAST(value ->> 6 AS integer),
               {moment_postgresql("CAST(value ->> 7 AS bigint)")}, value ->> 8
          FROM jsonb_array_elements(CAST(:events AS jsonb)) WITH ORDINALITY AS its(value, n)
         ORDER BY n
    """,
)

WRITE_DELTAS = Statement(
    sqlite="""
        INSERT INTO stat_deltas (
            at, queue, action, from_place, to_place, count, waited_seconds, ran_seconds)
        SELECT :now, value ->> 0, value ->> 1, value ->> 2, value ->> 3,
               value ->> 4, value ->> 5, value ->> 6
          FROM json_each(:deltas)
    """,
    postgresql=f"""
        WITH {CLOCK_POSTGRESQL}
        INSERT INTO stat_deltas (
            at, queue, action, from_place, to_place, count, waited_seconds, ran_seconds)
        SELECT clock.now, value ->> 0, value ->> 1, value ->> 2, value ->> 3,
               CAST(value ->> 4 AS bigint), CAST(value ->> 5 AS float8), CAST(value ->> 6 AS float8)
          FROM jsonb_array_elements(CAST(:deltas AS jsonb)) AS its(value) CROSS JOIN clock
    """,
)


@dataclass(frozen=True, slots=True)
class Move:
    """What the counters tell apart. A place is a status, `delayed`, or `none` before the create."""

    queue: str
    action: str
    from_place: str
    to_place: str


@dataclass(slots=True)
class Sums:
    """Over the steps that made one move."""

    jobs: int = 0
    waited_seconds: float = 0.0
    ran_seconds: float = 0.0

    def add(self, step: Step) -> None:
        self.jobs += 1
        self.waited_seconds += step.waited_seconds
        self.ran_seconds += step.ran_seconds


async def write_trail(session: WriteSession) -> None:
    """Write the steps that are not written yet: a row each, and a sum for each kind of move."""
    steps = session.take_unwritten()
    if not steps:
        return
    await session.run(WRITE_EVENTS, events=batch(map(_event, steps)))
    sums: defaultdict[Move, Sums] = defaultdict(Sums)
    for step in steps:
        sums[_move(step)].add(step)
    await write_deltas(session, sums)


async def write_deltas(session: WriteSession, sums: Mapping[Move, Sums]) -> None:
    """Append to the counters."""
    await session.run(
        WRITE_DELTAS,
        deltas=batch(
            (
                move.queue,
                move.action,
                move.from_place,
                move.to_place,
                its.jobs,
                its.waited_seconds,
                its.ran_seconds,
            )
            for move, its in sums.items()
        ),
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
