"""What stands in the store, read by another connection than the server's: rows, the trail, and what
must be true of every trail.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import groupby, pairwise
from typing import Any, Final, NamedTuple

from tests.databases import Database

# The picture of DESIGN section 2, said once more: where each action leads from and to.
PATHS: Final[Mapping[str, tuple[str, set[str]]]] = {
    "claim": ("queued", {"running"}),
    "succeed": ("running", {"succeeded"}),
    "fail": ("running", {"queued", "failed", "exhausted", "cancelled"}),
    "release": ("running", {"queued", "cancelled"}),
    "obey": ("running", {"cancelled"}),
    "lose": ("running", {"queued", "exhausted", "cancelled"}),
    "cancel": ("queued running", {"cancelled"}),
    "retry": ("succeeded failed exhausted cancelled", {"queued"}),
}


class Event(NamedTuple):
    """One row of the trail."""

    id: int
    job_id: int
    action: str
    from_status: str | None
    to_status: str
    actor: str
    reason: str | None
    attempt: int
    at: int
    lease_token: str | None


TRAILS: Final = """
    SELECT id, job_id, action, from_status, to_status, actor, reason, attempt, at, lease_token
      FROM job_events ORDER BY job_id, id
"""

# One snapshot: a job whose last event tells another status, or none.
DISAGREEMENTS: Final = """
    SELECT jobs.id, jobs.status, last.to_status
      FROM jobs
      LEFT JOIN job_events AS last
             ON last.id = (SELECT max(id) FROM job_events WHERE job_id = jobs.id)
     WHERE last.to_status IS DISTINCT FROM jobs.status
"""

# The counters are written with the events: whatever happened, they tell the same.
COUNTED: Final = """
    SELECT action, sum(count) AS n
      FROM (SELECT action, count FROM stats UNION ALL SELECT action, count FROM stat_deltas)
     WHERE action <> 'promote' GROUP BY action ORDER BY action
"""
TOLD: Final = "SELECT action, count(*) AS n FROM job_events GROUP BY action ORDER BY action"


def micros(moment: str) -> int:
    """A time as it is answered, as it is stored."""
    since = datetime.fromisoformat(moment) - datetime(1970, 1, 1, tzinfo=UTC)
    return since // timedelta(microseconds=1)


def stored_jobs(database: Database) -> dict[int, dict[str, Any]]:
    """All jobs, with the columns that no answer shows."""
    return {row["id"]: row for row in database.rows("SELECT * FROM jobs")}


def trails(database: Database) -> dict[int, list[Event]]:
    """Every job's events, in their order."""
    events = (Event(**row) for row in database.rows(TRAILS))
    return {job_id: list(trail) for job_id, trail in groupby(events, lambda it: it.job_id)}


def trail_of(database: Database, job_id: int) -> list[Event]:
    return trails(database)[job_id]


def actions(events: Iterable[Event]) -> list[str]:
    return [event.action for event in events]


def faults_of_trails(database: Database) -> list[str]:
    """What contradicts promises 2, 4 and 6 in any job's trail; nothing, if they hold."""
    jobs, found = stored_jobs(database), trails(database)
    faults = [f"job {job_id} has events and no row" for job_id in found.keys() - jobs.keys()]
    for job_id, job in jobs.items():
        trail = found.get(job_id, [])
        if not trail or trail[-1].to_status != job["status"]:
            faults.append(f"job {job_id} is {job['status']}, and its trail ends elsewhere: {trail}")
        faults.extend(f"job {job_id}: {fault}" for fault in (*_path(trail), *_leases(trail)))
    return faults


def _path(trail: Sequence[Event]) -> Iterable[str]:
    """Each event begins where the one before ended, by a move that the picture has."""
    if trail and (trail[0].action, trail[0].from_status) != ("create", None):
        yield f"begins with {trail[0]}"
    for before, event in pairwise(trail):
        if event.from_status != before.to_status:
            yield f"{event} does not go on from {before}"
        if event.at < before.at:
            yield f"{event} is earlier than {before}"
    for event in trail[1:]:
        origins, ends = PATHS[event.action]
        if event.from_status not in origins.split() or event.to_status not in ends:
            yield f"{event} is no move"


def _leases(trail: Sequence[Event]) -> Iterable[str]:
    """A lease ends, under its own token, before the next one begins."""
    held: str | None = None
    for event in trail:
        if event.action == "claim":
            if held is not None:
                yield f"{event} overlaps the lease {held}"
            held = event.lease_token
        elif event.from_status == "running":
            if event.lease_token != held:
                yield f"{event} ends another lease than {held}"
            held = None
