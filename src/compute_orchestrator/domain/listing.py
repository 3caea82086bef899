"""What a listing shows: which jobs, and the rows of a trail."""

from dataclasses import dataclass
from typing import NamedTuple

from compute_orchestrator.domain.values import Micros


@dataclass(frozen=True, slots=True)
class JobFilter:
    """Which jobs a page shows. An empty filter lets everything through."""

    statuses: tuple[str, ...] = ()
    queues: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    workers: tuple[str, ...] = ()
    created_after: Micros | None = None
    created_before: Micros | None = None
    include: frozenset[str] = frozenset()
    newest_first: bool = True


class Event(NamedTuple):
    """One row of the trail."""

    id: int
    action: str
    from_status: str | None
    to_status: str
    actor: str
    reason: str | None
    attempt: int
    at: Micros
