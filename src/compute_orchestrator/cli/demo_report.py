"""The end of the demo: a report from the stored results, and the proof from the audit trail.

Both are pure: they look at what the server answered, and at nothing that the demo remembers of its
own doing but the accepted ids and the jobs that the killed worker held.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final

from compute_orchestrator.cli.demo_tasks import FileCount
from compute_orchestrator.domain.lifecycle import Action, Status, allows

TOP_MODULES: Final = 20


@dataclass(frozen=True, slots=True)
class Event:
    """One row of a job's trail, as the server answered it. `at` compares as text."""

    id: int
    action: str
    from_status: str | None
    to_status: str
    actor: str
    at: str


@dataclass(frozen=True, slots=True)
class StoredJob:
    """One job as the server has it at the end, with its trail."""

    id: int
    path: str
    status: str
    retry_count: int
    result: FileCount | None
    events: Sequence[Event]


@dataclass(frozen=True, slots=True)
class Accepted:
    """What the demo knows from the answers that it got: each file's job, and the killed worker's."""

    job_of_file: Mapping[str, int]
    held_by_killed: Sequence[int] = ()
    killed_worker: str | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """What the stored results add up to."""

    jobs: int
    unparsed: int
    lines: int
    functions: int
    classes: int
    imports: int
    recovered: int
    retries: int
    jobs_per_second: float
    top_modules: Sequence[tuple[str, int]] = field(default=())
