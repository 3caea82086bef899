"""Claims on the wire."""

from typing import Annotated

from pydantic import AfterValidator, ConfigDict, Field
from pydantic.config import JsonDict

from compute_orchestrator.domain.lease import ClaimRequest
from compute_orchestrator.schemas.jobs import EXAMPLE_JOB, JobOutput
from compute_orchestrator.schemas.values import (
    Input,
    LeaseSeconds,
    Segment,
    ShortText,
    WaitSeconds,
)

MOST_QUEUES = 32


def _few(queues: list[str]) -> list[str]:
    """Duplicates count once."""
    if len(set(queues)) > MOST_QUEUES:
        raise ValueError(f"must name at most {MOST_QUEUES} queues")
    return queues


class ClaimFields(Input):
    """Where to take from, and how."""

    queues: Annotated[list[Segment], Field(min_length=1), AfterValidator(_few)] | None = Field(
        None, description='Where to take from, at most 32; "default".'
    )
    lease_seconds: LeaseSeconds | None = Field(None, description="The length of each lease.")
    request_id: ShortText | None = Field(
        None, description="Makes the claim repeatable: the same one gives the same leases again."
    )
    wait_seconds: WaitSeconds | None = Field(
        None, description="How long to wait for a job where there is none now; 0, at most 60."
    )

    def of(self, worker_id: str, limit: int = 1) -> ClaimRequest:
        queues = ("default",) if self.queues is None else tuple(sorted(set(self.queues)))
        return ClaimRequest(worker_id, queues, self.lease_seconds, self.request_id, limit)


class ClaimInput(ClaimFields):
    """A worker asks for one job."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"worker_id": "host-1", "queues": ["images"]}]}
    )

    worker_id: Segment


EXAMPLE_CLAIMED: JsonDict = {
    **EXAMPLE_JOB,
    "lease_token": "6f1c0b0d5f7e4b0c9a8d7e6f5a4b3c2d",
    "status": "running",
    "attempt": 1,
    "locked_by": "host-1",
    "locked_at": "2026-11-23T21:45:48.000000Z",
    "last_heartbeat_at": "2026-11-23T21:45:48.000000Z",
    "lease_expires_at": "2026-11-23T21:46:48.000000Z",
}


class ClaimOutput(JobOutput):
    """A job and the lease on it."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE_CLAIMED]})

    lease_token: str = Field(description="Proves the lease. Send it with heartbeats and reports.")
