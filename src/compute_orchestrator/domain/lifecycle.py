"""The life of a job: its statuses, the actions that move it, and THE table of allowed moves.

Every change of status is a `Step`, and a step that the table does not know can't be made: that is
how nothing bypasses the state machine (promise 6).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from compute_orchestrator.domain.values import JobId, LeaseToken, Micros


class Status(StrEnum):
    """Where a job stands."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    EXHAUSTED = "exhausted"
    CANCELLED = "cancelled"


class Action(StrEnum):
    """What moved it."""

    CREATE = "create"
    CLAIM = "claim"
    SUCCEED = "succeed"
    FAIL = "fail"
    RELEASE = "release"
    OBEY = "obey"
    LOSE = "lose"
    CANCEL = "cancel"
    RETRY = "retry"


FINAL: Final = frozenset({Status.SUCCEEDED, Status.FAILED, Status.EXHAUSTED, Status.CANCELLED})

TRANSITIONS: Final[Mapping[tuple[Status | None, Action], frozenset[Status]]] = {
    (None, Action.CREATE): frozenset({Status.QUEUED}),
    (Status.QUEUED, Action.CLAIM): frozenset({Status.RUNNING}),
    (Status.QUEUED, Action.CANCEL): frozenset({Status.CANCELLED}),
    (Status.RUNNING, Action.SUCCEED): frozenset({Status.SUCCEEDED}),
    (Status.RUNNING, Action.FAIL): frozenset(
        {Status.QUEUED, Status.FAILED, Status.EXHAUSTED, Status.CANCELLED}
    ),
    (Status.RUNNING, Action.RELEASE): frozenset({Status.QUEUED, Status.CANCELLED}),
    (Status.RUNNING, Action.OBEY): frozenset({Status.CANCELLED}),
    (Status.RUNNING, Action.LOSE): frozenset({Status.QUEUED, Status.EXHAUSTED, Status.CANCELLED}),
    (Status.RUNNING, Action.CANCEL): frozenset({Status.CANCELLED}),
    (Status.SUCCEEDED, Action.RETRY): frozenset({Status.QUEUED}),
    (Status.FAILED, Action.RETRY): frozenset({Status.QUEUED}),
    (Status.EXHAUSTED, Action.RETRY): frozenset({Status.QUEUED}),
    (Status.CANCELLED, Action.RETRY): frozenset({Status.QUEUED}),
}


def allows(from_status: Status | None, action: Action, to_status: Status) -> bool:
    """Whether the table knows this move."""
    return to_status in TRANSITIONS.get((from_status, action), frozenset())


@dataclass(frozen=True, slots=True)
class Step:
    """One change of status: a row of the audit trail, and what the counters need of it.

    `delayed_from` and `delayed_to` say whether the job waited, or waits now, for its `run_at`.
    `waited_seconds` is how long it could have been claimed before it was (on a claim),
    `ran_seconds` the time since the claim (on a step out of `running`).

    Raises ValueError for a move that is not in the table.
    """

    job_id: JobId
    queue: str
    action: Action
    from_status: Status | None
    to_status: Status
    actor: str
    at: Micros
    attempt: int
    reason: str | None = None
    lease_token: LeaseToken | None = None
    delayed_from: bool = False
    delayed_to: bool = False
    waited_seconds: float = 0.0
    ran_seconds: float = 0.0

    def __post_init__(self) -> None:
        if not allows(self.from_status, self.action, self.to_status):
            raise ValueError(f"no {self.action} from {self.from_status} to {self.to_status}")
