"""All that is known after a run: the calls as recorded, the jobs and the trail as they stand at the
end, and for each lease its part of them.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

from tests.databases import Database
from tests.promises.history import Call, read_history
from tests.promises.records import TRAILS, Event, micros

JOBS: Final = """
    SELECT id, payload, status, attempt, retry_count, max_retries, checkpoint, result
      FROM jobs ORDER BY id
"""
ACTION_OF: Final = {
    "succeeded": "succeed",
    "failed": "fail",
    "queued": "release",
    "cancelled": "obey",
}
REPORTED: Final = set(ACTION_OF.values())


def action(report: Call) -> str:
    """The step that a report asks for."""
    return ACTION_OF[report.ask.body["status"]]


class StoredJob(NamedTuple):
    """A row of JOBS. JSON is text."""

    id: int
    payload: str | None
    status: str
    attempt: int
    retry_count: int
    max_retries: int
    checkpoint: str | None
    result: str | None


class Outage(NamedTuple):
    """The store was away at least between these times, and longer than two passes of the reaper."""

    since: int
    until: int


@dataclass
class Lease:
    """The calls that carry its token, or were answered it, and its steps in the trail."""

    token: str
    claims: list[Call] = field(default_factory=list[Call])
    beats: list[Call] = field(default_factory=list[Call])
    reports: list[Call] = field(default_factory=list[Call])
    begins: list[Event] = field(default_factory=list[Event])
    ends: list[Event] = field(default_factory=list[Event])

    @property
    def job_id(self) -> int | None:
        if self.claims:
            return self.claims[0].answer["id"]
        steps, calls = [*self.begins, *self.ends], [*self.beats, *self.reports]
        return steps[0].job_id if steps else calls[0].ask.job_id

    @property
    def told_until(self) -> int:
        """The latest expiry that was answered; 0 where none was."""
        told = [*self.claims, *(beat for beat in self.beats if beat.taken)]
        return max((micros(call.answer["lease_expires_at"]) for call in told), default=0)

    def __str__(self) -> str:
        return f"job {self.job_id}: the lease {self.token[:8]}"


class Evidence:
    def __init__(
        self,
        calls: Sequence[Call],
        jobs: Iterable[StoredJob],
        events: Iterable[Event],
        outages: Sequence[Outage] = (),
    ) -> None:
        """`calls` stand in the order of each caller, `events` in the order of each job."""
        self.calls = calls
        self.claims_by: defaultdict[str, list[Call]] = defaultdict(list)
        self._by_kind: defaultdict[str, list[Call]] = defaultdict(list)
        self._by_job: defaultdict[int | None, list[Call]] = defaultdict(list)
        for call in calls:
            self._by_kind[call.ask.kind].append(call)
            self._by_job[call.ask.job_id].append(call)
            if call.ask.kind == "claim":
                self.claims_by[call.by].append(call)
        self.jobs = {job.id: job for job in jobs}
        self.trails: defaultdict[int, list[Event]] = defaultdict(list)
        for event in events:
            self.trails[event.job_id].append(event)
        self.outages = outages
        self.leases = self._leases()

    def of(self, *kinds: str) -> list[Call]:
        return [call for kind in kinds for call in self._by_kind[kind]]

    def about(self, job_id: int, *kinds: str) -> list[Call]:
        """Calls that named this job."""
        return [call for call in self._by_job[job_id] if call.ask.kind in kinds]

    def may_have_begun(self, lease: Lease) -> list[Call]:
        """The copies of the request that was answered it; if none was, what was never answered."""
        asked = self.claims_by[lease.begins[0].actor]
        if not lease.claims:
            return [call for call in asked if not call.taken]
        request_id = lease.claims[0].ask.body["request_id"]
        return [call for call in asked if call.ask.body["request_id"] == request_id]

    def may_have_ended(self, lease: Lease) -> list[Call]:
        """Its holder's reports of what stands in the trail; the forced cancels of its job."""
        end = lease.ends[0]
        if end.action == "cancel":
            return self.about(end.job_id, "force")
        return [
            call for call in lease.reports if action(call) == end.action and call.by == end.actor
        ]

    def length(self, lease: Lease) -> int:
        """Microseconds: as its claim asked; where that is not known, the least its worker asked."""
        claims = lease.claims or [
            call for step in lease.begins for call in self.claims_by[step.actor]
        ]
        return round(min((call.ask.body["lease_seconds"] for call in claims), default=0) * 1e6)

    def story(self, job_id: int) -> list[str]:
        """Everything about one job, in the order of time."""
        told: list[tuple[int, str]] = [(event.at, str(event)) for event in self.trails[job_id]]
        told += [(call.sent, str(call)) for call in self.calls if call.job_id == job_id]
        return [f"{at} {what}" for at, what in sorted(told)]

    def _leases(self) -> list[Lease]:
        found: dict[str, Lease] = {}

        def lease(token: str | None) -> Lease:
            return found.setdefault(str(token), Lease(str(token)))

        for call in self.of("claim"):
            if call.status == 200:
                lease(call.answer["lease_token"]).claims.append(call)
        for call in self.of("heartbeat"):
            lease(call.ask.body["lease_token"]).beats.append(call)
        for call in self.of("report"):
            lease(call.ask.body["lease_token"]).reports.append(call)
        for trail in self.trails.values():
            for event in trail:
                if event.action == "claim":
                    lease(event.lease_token).begins.append(event)
                elif event.from_status == "running":
                    lease(event.lease_token).ends.append(event)
        return list(found.values())


def gathered(folder: Path, database: Database, outages: Sequence[Outage] = ()) -> Evidence:
    """What was recorded in this folder, and what stands in the database now."""
    with database.connected() as ask:
        jobs = [StoredJob(**row) for row in ask(JOBS)]
        events = [Event(**row) for row in ask(TRAILS)]
    return Evidence(read_history(folder), jobs, events, outages)
