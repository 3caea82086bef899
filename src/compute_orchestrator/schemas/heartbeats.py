"""Heartbeats on the wire."""

from typing import Any

from pydantic import ConfigDict, Field

from compute_orchestrator.domain.lease import Heartbeat, LeaseKey, LeaseState
from compute_orchestrator.domain.values import JobId, LeaseToken
from compute_orchestrator.schemas.values import (
    Input,
    Output,
    Segment,
    ShortText,
    ShownMoment,
    fits,
    format_moment,
    to_json,
)


class HeartbeatFields(Input):
    """A sign of life. Absent progress and checkpoint leave what is stored."""

    lease_token: ShortText
    progress: Any = Field(None, description="Any JSON; shown with the job.")
    checkpoint: Any = Field(None, description="Any JSON; given to the next attempt.")

    def of(
        self, worker_id: str, job_id: JobId, *, max_progress_bytes: int, max_checkpoint_bytes: int
    ) -> Heartbeat:
        """Raises PayloadTooLarge."""
        progress = None if self.progress is None else to_json(self.progress)
        checkpoint = None if self.checkpoint is None else to_json(self.checkpoint)
        return Heartbeat(
            LeaseKey(job_id, LeaseToken(self.lease_token)),
            worker_id,
            fits(progress, max_progress_bytes, "progress"),
            fits(checkpoint, max_checkpoint_bytes, "checkpoint"),
        )


class HeartbeatInput(HeartbeatFields):
    """A sign of life. Absent progress and checkpoint leave what is stored."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "worker_id": "host-1",
                    "lease_token": "6f1c0b0d5f7e4b0c9a8d7e6f5a4b3c2d",
                    "progress": {"done": 0.4},
                }
            ]
        }
    )

    worker_id: Segment


class HeartbeatOutput(Output):
    """The lease as it stands now."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": 17,
                    "lease_expires_at": "2026-11-23T21:46:47.000000Z",
                    "cancel_requested": False,
                }
            ]
        }
    )

    id: int
    lease_expires_at: ShownMoment
    cancel_requested: bool = Field(description="Whether to stop and report `cancelled`.")


def lease_state_json(state: LeaseState) -> str:
    cancel = "true" if state.cancel_requested else "false"
    return (
        f'{{"id":{state.job_id},"lease_expires_at":"{format_moment(state.lease_expires_at)}",'
        f'"cancel_requested":{cancel}}}'
    )
