"""When a call is repeated, and after what wait.

`Patience` is for one call, and has an end. `Backoff` is for loops that never give up.
"""

import logging
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TypeVar

from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception,
    wait_exponential,
)

from compute_orchestrator.client.errors import (
    InvalidTransition,
    JobNotFound,
    LeaseLost,
    NoAnswer,
    PayloadTooLarge,
    Problem,
    RequestTimeout,
    ServerFailed,
    ValidationFailed,
)

T = TypeVar("T")

logger = logging.getLogger("compute_orchestrator.client")

TOO_MANY_REQUESTS = 429

# The server's own words on what the holder of a lease sent, which no repeat would change. Any other
# refusal may be a stranger's: a proxy, or a program that has the port while the server restarts.
# A plain 413 counts too: a proxy before the server refuses this body each time.
CONTENT_REFUSED = (ValidationFailed, PayloadTooLarge)
DEFINITE = (LeaseLost, InvalidTransition, JobNotFound, *CONTENT_REFUSED)


def is_passing(error: BaseException) -> bool:
    """Whether the same call may do better later. Every call may be repeated without harm."""
    if isinstance(error, NoAnswer | ServerFailed | RequestTimeout):
        return True
    return isinstance(error, Problem) and error.status == TOO_MANY_REQUESTS


def asked_wait(error: BaseException | None) -> float | None:
    """The wait that the answer asks for (`Retry-After`)."""
    return error.retry_after_seconds if isinstance(error, Problem) else None


def parse_retry_after(value: str | None) -> float | None:
    """Seconds, or the time until a date; None for what is neither."""
    if value is None:
        return None
    if value.strip().isdecimal():
        return float(value)
    try:
        moment = parsedate_to_datetime(value)
    except ValueError:
        return None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long one call is repeated until it is given up."""

    total_seconds: float = 30.0
    first_wait_seconds: float = 0.1
    longest_wait_seconds: float = 5.0
    jitter_seconds: float = 0.5

    async def run(
        self, call: Callable[[], Awaitable[T]], name: str, *, waits_seconds: float = 0
    ) -> T:
        """The call's answer, or its last error once the next try would come too late.

        What a first try waited before it failed, up to `waits_seconds`, is no time of failure.
        """
        waited = 0.0

        def is_over(state: RetryCallState) -> bool:
            nonlocal waited
            so_far = state.seconds_since_start or 0.0
            if state.attempt_number == 1:
                waited = min(so_far, waits_seconds)
            return so_far - waited + state.upcoming_sleep >= self.total_seconds

        repeating = AsyncRetrying(
            retry=retry_if_exception(is_passing),
            wait=self._wait,
            stop=is_over,
            before_sleep=lambda state: _tell(name, state),
            reraise=True,
        )

        async def once() -> T:  # of a lambda it can't be told that it is to be awaited
            return await call()

        return await repeating(once)

    def _wait(self, state: RetryCallState) -> float:
        """Doubling up to a limit, and no shorter than the server asks for; then the jitter."""
        growing = wait_exponential(self.first_wait_seconds, max=self.longest_wait_seconds)(state)
        jitter = random.uniform(0, self.jitter_seconds)  # noqa: S311 - spreads load, keeps no secret
        return max(growing, asked_wait(_error_of(state)) or 0) + jitter


ONE_TRY = Patience(total_seconds=0)


def _tell(name: str, state: RetryCallState) -> None:
    error = _error_of(state)
    what = "no answer"
    if isinstance(error, Problem):
        what = f"{error.status} {error.code}" if error.code else str(error.status)
    logger.warning("%s: %s, again in %.1f s", name, what, state.upcoming_sleep)


def _error_of(state: RetryCallState) -> BaseException | None:
    return None if state.outcome is None else state.outcome.exception()


class Backoff:
    """A wait that doubles up to a limit. Jitter takes up to half of it away."""

    def __init__(self, first_seconds: float, longest_seconds: float) -> None:
        self._first = first_seconds
        self._longest = longest_seconds
        self._next = first_seconds

    def reset(self) -> None:
        self._next = self._first

    def wait(self) -> float:
        wait = self._next
        self._next = min(2 * wait, self._longest)
        return wait * random.uniform(0.5, 1)  # noqa: S311 - spreads load, keeps no secret

    def wait_after(self, error: Exception) -> float:
        """No shorter than the server asks for, as long as that is within the limit."""
        return max(self.wait(), min(asked_wait(error) or 0, self._longest))
