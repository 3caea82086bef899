"""The parts of a sync: what a busy worker says, and asks for, in one call."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from compute_orchestrator.client.models import ClaimedJob, Json
from compute_orchestrator.client.reports import Report


@dataclass(frozen=True)
class BeatItem:
    """One job's heartbeat."""

    job: ClaimedJob
    progress: Json = None
    checkpoint: Json = None

    def fields(self) -> dict[str, object]:
        proof = {"id": self.job.id, "lease_token": self.job.lease_token}
        return {**proof, **_said(progress=self.progress, checkpoint=self.checkpoint)}


@dataclass(frozen=True)
class ClaimPart:
    """Up to `limit` jobs. Without a `request_id` the client makes one for the call."""

    queues: Sequence[str] | None
    limit: int
    lease_seconds: float | None = None
    wait_seconds: float | None = None
    request_id: str | None = None

    def fields(self) -> dict[str, object]:
        return _said(
            queues=self.queues,
            limit=self.limit,
            lease_seconds=self.lease_seconds,
            wait_seconds=self.wait_seconds,
            request_id=self.request_id,
        )


def sync_fields(
    about: Mapping[str, object] | None,
    reports: Sequence[tuple[ClaimedJob, Report]],
    heartbeats: Sequence[BeatItem],
    claim: ClaimPart | None,
) -> dict[str, object]:
    """The body of the call; a part that says nothing is left out."""
    fields: dict[str, object] = {
        "about": about,
        "reports": [
            {"id": job.id, "lease_token": job.lease_token, **report.fields()}
            for job, report in reports
        ],
        "heartbeats": [beat.fields() for beat in heartbeats],
        "claim": claim and claim.fields(),
    }
    return {name: value for name, value in fields.items() if value}


def _said(**fields: object) -> dict[str, object]:
    return {name: value for name, value in fields.items() if value is not None}
