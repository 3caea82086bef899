"""What a worker has to report and has no definite answer to, in the order in which it is sent."""

from collections import deque
from collections.abc import Sequence

from compute_orchestrator.client.attempt import Attempt
from compute_orchestrator.client.sizes import MOST_BYTES, size_of

# The protocol's, for one call.
MOST_REPORTS = 1_000


class Outbox:
    """Attempts whose reports wait to be sent, oldest first."""

    def __init__(self) -> None:
        self._waiting: deque[Attempt] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, attempt: Attempt) -> None:
        self._waiting.append(attempt)

    def put_back(self, attempts: Sequence[Attempt]) -> None:
        self._waiting.extendleft(reversed(attempts))

    @property
    def undelivered(self) -> int:
        """How many were sent already, and had no definite answer."""
        return sum(attempt.was_sent for attempt in self._waiting)

    def take(self) -> list[Attempt]:
        """As many as one call takes; at least one, if there is one."""
        taken: list[Attempt] = []
        size = 0
        while self._waiting and len(taken) < MOST_REPORTS and size < MOST_BYTES:
            report = self._waiting[0].report
            if report is not None:
                size += size_of(report.result) + size_of(report.error)
            if taken and size > MOST_BYTES:
                break
            taken.append(self._waiting.popleft())
        return taken
