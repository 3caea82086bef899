"""The end of the demo: the report from the stored results, and the proof from the audit trail.

Both are pure: they look at what the server answered, and beyond that only at the ids that it
accepted and at the jobs that the killed worker held.
"""

from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import Final, TypeVar

from compute_orchestrator.cli.demo_tasks import FileCount
from compute_orchestrator.domain.lifecycle import Action, Status, allows

T = TypeVar("T", bound=Hashable)

TOP_MODULES: Final = 20
BY_HOLDER: Final = frozenset({Action.SUCCEED, Action.FAIL, Action.RELEASE, Action.OBEY})


@dataclass(frozen=True, slots=True)
class Event:
    """One row of a job's trail."""

    id: int
    action: str
    from_status: str | None
    to_status: str | None
    actor: str | None
    at: datetime


@dataclass(frozen=True, slots=True)
class StoredJob:
    """One job as the server has it in the end, with its trail."""

    id: int
    path: str
    status: str
    retry_count: int
    result: FileCount | None
    events: Sequence[Event]


@dataclass(frozen=True, slots=True)
class Expected:
    """What must be there: the job that was accepted for each file, and whose worker was killed."""

    job_of_file: Mapping[str, int]
    killed_worker: str
    held_when_killed: Sequence[int]


@dataclass(frozen=True, slots=True)
class Report:
    """What the stored results add up to. A module counts once for each file that imports it."""

    jobs: int
    unparsed: int
    lines: int
    functions: int
    classes: int
    imports: int
    recovered: int
    retries: int
    jobs_per_second: float
    top_modules: Sequence[tuple[str, int]]


def add_up(jobs: Sequence[StoredJob]) -> Report:
    results = [job.result for job in jobs if job.result is not None]
    modules = Counter(module for result in results for module in result.modules)
    return Report(
        jobs=len(jobs),
        unparsed=sum(result.fault is not None for result in results),
        lines=sum(result.lines for result in results),
        functions=sum(result.functions for result in results),
        classes=sum(result.classes for result in results),
        imports=sum(result.imports for result in results),
        recovered=sum(any(event.action == Action.LOSE for event in job.events) for job in jobs),
        retries=sum(job.retry_count for job in jobs),
        jobs_per_second=jobs_per_second(jobs),
        top_modules=sorted(modules.items(), key=lambda it: (-it[1], it[0]))[:TOP_MODULES],
    )


def jobs_per_second(jobs: Sequence[StoredJob]) -> float:
    """From the first create to the last success, by the server's clock."""
    starts = [event.at for job in jobs for event in job.events if event.action == Action.CREATE]
    ends = [event.at for job in jobs for event in job.events if event.action == Action.SUCCEED]
    if not (starts and ends):
        return 0.0
    seconds = (max(ends) - min(starts)).total_seconds()
    return len(ends) / seconds if seconds > 0 else 0.0


def find_faults(expected: Expected, jobs: Sequence[StoredJob]) -> list[str]:
    """What breaks the proof, each in a sentence. An empty list is the proof."""
    faults = [
        *lost_or_doubled(expected.job_of_file, jobs),
        *results_missing_or_doubled(expected.job_of_file, jobs),
        *not_recovered(expected, jobs),
    ]
    for job in jobs:
        name = f"job {job.id} ({job.path})"
        found = [*path_faults(job), *ending_faults(job), *lease_faults(job.events)]
        faults += [f"{name}: {fault}" for fault in found]
    return faults


def lost_or_doubled(job_of_file: Mapping[str, int], jobs: Sequence[StoredJob]) -> Iterator[str]:
    """What was accepted is stored, each file once, and nothing else."""
    accepted = set(job_of_file.values())
    stored = {job.id for job in jobs}
    if len(accepted) != len(job_of_file):
        yield "two files were accepted as the same job"
    yield from (
        f"job {job_id} ({path}) was accepted and is lost"
        for path, job_id in job_of_file.items()
        if job_id not in stored
    )
    yield from (f"job {it} is stored, but was never accepted" for it in sorted(stored - accepted))
    yield from (f"job {it} is stored twice" for it in repeated(job.id for job in jobs))
    yield from (f"{path} has two jobs" for path in repeated(job.path for job in jobs))
    yield from (
        f"job {job.id} stands for {job.path}, another was accepted for it"
        for job in jobs
        if job_of_file.get(job.path, job.id) != job.id
    )


def results_missing_or_doubled(
    job_of_file: Mapping[str, int], jobs: Sequence[StoredJob]
) -> Iterator[str]:
    """Every file has one result, and it is this file's."""
    results = [job.result.path for job in jobs if job.result is not None]
    yield from (f"{path} has two results" for path in repeated(results))
    yield from (
        f"job {job.id} ({job.path}) has the result of {job.result.path}"
        for job in jobs
        if job.result is not None and job.result.path != job.path
    )
    if len(results) != len(job_of_file):
        yield f"{len(job_of_file)} jobs were accepted, and there are {len(results)} results"


def repeated(values: Iterable[T]) -> list[T]:
    return [value for value, count in Counter(values).items() if count > 1]


def not_recovered(expected: Expected, jobs: Sequence[StoredJob]) -> Iterator[str]:
    """What the killed worker held was taken from it, and done by another."""
    killed = expected.killed_worker
    if not expected.held_when_killed:
        yield f"no job was held by {killed} when it was killed"
    by_id = {job.id: job for job in jobs}
    for job_id in expected.held_when_killed:
        events = by_id[job_id].events if job_id in by_id else ()
        steps = [(event.action, event.actor) for event in events]
        lost = any(
            before == (Action.CLAIM, killed) and after[0] == Action.LOSE
            for before, after in pairwise(steps)
        )
        done_by = next((actor for action, actor in steps if action == Action.SUCCEED), None)
        if not lost:
            yield f"job {job_id} was held by {killed} when it was killed, and never taken from it"
        if done_by in (None, killed):
            yield f"job {job_id} was held by {killed} when it was killed, and done by no other"


def path_faults(job: StoredJob) -> Iterator[str]:
    """The trail is a path through the state machine that ends in the job's status."""
    at: str | None = None
    for event in job.events:
        step = f"event {event.id} ({event.action} from {event.from_status} to {event.to_status})"
        if event.from_status != at:
            yield f"{step} starts elsewhere than the one before it ended ({at})"
        if not is_allowed(event):
            yield f"{step} is no allowed move"
        at = event.to_status
    if at != job.status:
        yield f"the trail ends in {at}, the job is {job.status}"
    for before, after in pairwise(job.events):
        if after.id <= before.id:
            yield f"event {after.id} comes after event {before.id}"
        if after.at < before.at:
            yield f"event {after.id} is earlier than event {before.id}"


def is_allowed(event: Event) -> bool:
    try:
        from_status = None if event.from_status is None else Status(event.from_status)
        return allows(from_status, Action(event.action), Status(event.to_status or ""))
    except ValueError:  # a status or an action that nobody knows
        return False


def ending_faults(job: StoredJob) -> Iterator[str]:
    """It succeeded exactly once, and the result is there."""
    successes = sum(event.to_status == Status.SUCCEEDED for event in job.events)
    if job.status != Status.SUCCEEDED:
        yield f"is {job.status}"
    if successes != 1:
        yield f"succeeded {successes} times"
    if job.result is None:
        yield "has no result"


def lease_faults(events: Sequence[Event]) -> Iterator[str]:
    """No two leases overlap, by id or by time, and only the holder of a lease reports under it."""
    claim: Event | None = None
    left: Event | None = None
    for event in sorted(events, key=lambda event: event.id):
        if event.action == Action.CLAIM:
            if claim is not None:
                yield f"{event.actor} claimed it while {claim.actor} held it (event {event.id})"
            if left is not None and event.at < left.at:
                yield f"{event.actor} claimed it before the last lease ended (event {event.id})"
            claim = event
        elif event.from_status == Status.RUNNING:
            if claim is None:
                yield f"event {event.id} ({event.action}) ends a lease that was never given"
            elif event.action in BY_HOLDER and event.actor != claim.actor:
                yield f"{event.actor} reported under the lease of {claim.actor} (event {event.id})"
            claim, left = None, event
