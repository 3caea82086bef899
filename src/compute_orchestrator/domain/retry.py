"""What comes of an attempt that ended: again later, or the end. Pure: the random number comes in.

Three ways lead here: a worker reports (`Failed`, `Released`, `Obeyed`), or the reaper finds its
lease run out (`Lost`). A success needs no decision.
"""

from dataclasses import dataclass
from typing import Final, Protocol, assert_never

from compute_orchestrator.domain.lifecycle import Action, Status
from compute_orchestrator.domain.values import Micros, micros

FREE_RELEASES: Final = 2
"""How many releases keep their place in line before the backoff applies to them too."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Exponential backoff with jitter. Durations in seconds; `jitter` is a share of the delay."""

    base_seconds: float = 1.0
    factor: float = 2.0
    max_seconds: float = 3600.0
    jitter: float = 0.2

    def backoff_seconds(self, n: int, chance: float) -> float:
        """The delay before retry number `n` (from 1): min(base * factor^(n-1), max) plus jitter.

        `chance` is a random number in [0, 1).
        """
        try:
            delay = self.base_seconds * self.factor ** (n - 1)
        except OverflowError:
            delay = self.max_seconds if self.base_seconds else 0.0
        return min(delay, self.max_seconds) * (1 + self.jitter * chance)


@dataclass(frozen=True, slots=True)
class Failed:
    """The worker reported a failure."""

    reason: str | None = None
    retryable: bool = True
    retry_in_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Released:
    """The job was handed back. The server's own release (a client that vanished) is not counted."""

    run_in_seconds: float | None = None
    counted: bool = True
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Obeyed:
    """The worker stopped because it was asked to."""


@dataclass(frozen=True, slots=True)
class Lost:
    """The lease ran out. The reason is `lease-expired` or `timeout`."""

    reason: str


Outcome = Failed | Released | Obeyed | Lost


class Attempt(Protocol):
    """What a decision looks at: the counters and the policy of a running job."""

    @property
    def retry_count(self) -> int: ...
    @property
    def max_retries(self) -> int: ...
    @property
    def release_count(self) -> int: ...
    @property
    def run_at(self) -> Micros: ...
    @property
    def cancel_requested(self) -> bool: ...
    @property
    def retry_policy(self) -> RetryPolicy: ...


@dataclass(frozen=True, slots=True)
class Decision:
    """What to write about a job that leaves `running`."""

    action: Action
    status: Status
    retry_count: int
    release_count: int
    run_at: Micros
    reason: str | None = None


def decide(attempt: Attempt, outcome: Outcome, now: Micros, chance: float) -> Decision:
    """Turn the end of an attempt into the job's next status, counters and time.

    A requested cancel is one-way: such a job never goes back to the queue.
    """
    match outcome:
        case Failed():
            decision = _failed(attempt, outcome, now, chance)
        case Lost():
            decision = _lost(attempt, outcome, now, chance)
        case Released():
            decision = _released(attempt, outcome, now, chance)
        case Obeyed():
            decision = _ended(attempt, Action.OBEY, Status.CANCELLED)
        case _:
            assert_never(outcome)
    if attempt.cancel_requested and decision.status is not Status.CANCELLED:
        return _ended(attempt, decision.action, Status.CANCELLED, decision.reason)
    return decision


def _failed(attempt: Attempt, outcome: Failed, now: Micros, chance: float) -> Decision:
    if not outcome.retryable or attempt.max_retries == 0:
        return _ended(attempt, Action.FAIL, Status.FAILED, outcome.reason)
    return _retried(
        attempt, Action.FAIL, outcome.reason, now, chance, delay=outcome.retry_in_seconds
    )


def _lost(attempt: Attempt, outcome: Lost, now: Micros, chance: float) -> Decision:
    return _retried(attempt, Action.LOSE, outcome.reason, now, chance, delay=None)


def _retried(
    attempt: Attempt,
    action: Action,
    reason: str | None,
    now: Micros,
    chance: float,
    *,
    delay: float | None,
) -> Decision:
    if attempt.retry_count >= attempt.max_retries:
        return _ended(attempt, action, Status.EXHAUSTED, reason)
    count = attempt.retry_count + 1
    if delay is None:
        delay = attempt.retry_policy.backoff_seconds(count, chance)
    return Decision(action, Status.QUEUED, count, 0, Micros(now + micros(delay)), reason)


def _released(attempt: Attempt, outcome: Released, now: Micros, chance: float) -> Decision:
    count = attempt.release_count + (1 if outcome.counted else 0)
    delay = outcome.run_in_seconds
    if delay is None and outcome.counted and count > FREE_RELEASES:
        delay = attempt.retry_policy.backoff_seconds(count, chance)
    run_at = attempt.run_at if delay is None else Micros(now + micros(delay))
    return Decision(
        Action.RELEASE, Status.QUEUED, attempt.retry_count, count, run_at, outcome.reason
    )


def _ended(attempt: Attempt, action: Action, status: Status, reason: str | None = None) -> Decision:
    release_count = 0 if action in (Action.FAIL, Action.LOSE) else attempt.release_count
    return Decision(action, status, attempt.retry_count, release_count, attempt.run_at, reason)
