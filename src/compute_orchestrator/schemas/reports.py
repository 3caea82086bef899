"""Reports on the wire: one shape for each status that a lease holder may report."""

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from compute_orchestrator.domain.lease import LeaseKey
from compute_orchestrator.domain.report import Report, ReportedOutcome, Succeeded
from compute_orchestrator.domain.retry import Failed, Obeyed, Released
from compute_orchestrator.domain.values import JobId, LeaseToken
from compute_orchestrator.schemas.values import Input, Seconds, Segment, ShortText, fits, to_json

_BELONGS: Mapping[str, frozenset[str]] = {
    "succeeded": frozenset({"result"}),
    "failed": frozenset({"error", "retryable", "retry_in_seconds"}),
    "queued": frozenset({"run_in_seconds"}),
    "cancelled": frozenset(),
}
_ALWAYS = frozenset({"id", "status", "worker_id", "lease_token"})


class ReportFields(Input):
    """What came of the attempt. A field that does not belong to the status is refused."""

    status: Literal["succeeded", "failed", "queued", "cancelled"]
    lease_token: ShortText
    result: Any = Field(None, description="With succeeded: any JSON.")
    error: dict[str, Any] | None = Field(
        None, description="With failed: type, message, traceback, data are shown well."
    )
    retryable: bool | None = Field(None, description="With failed: whether to try again; true.")
    retry_in_seconds: Seconds | None = Field(None, description="With failed: instead of a backoff.")
    run_in_seconds: Seconds | None = Field(None, description="With queued: not before then.")

    @model_validator(mode="after")
    def _belongs(self) -> Self:
        given = {name for name in self.model_fields_set if getattr(self, name) is not None}
        foreign = sorted(given - _ALWAYS - _BELONGS[self.status])
        if foreign:
            raise ValueError(f"{', '.join(foreign)} does not belong to status {self.status}")
        return self

    def of(
        self, worker_id: str, job_id: JobId, *, max_result_bytes: int, max_error_bytes: int
    ) -> Report:
        """Raises PayloadTooLarge."""
        error = None if self.error is None else to_json(self.error)
        return Report(
            LeaseKey(job_id, LeaseToken(self.lease_token)),
            worker_id,
            self._outcome(max_result_bytes),
            fits(error, max_error_bytes, "error"),
        )

    def _outcome(self, max_result_bytes: int) -> ReportedOutcome:
        match self.status:
            case "succeeded":
                result = None if self.result is None else to_json(self.result)
                return Succeeded(fits(result, max_result_bytes, "result"))
            case "failed":
                return Failed(
                    retryable=self.retryable is not False,
                    retry_in_seconds=self.retry_in_seconds,
                )
            case "queued":
                return Released(self.run_in_seconds)
            case "cancelled":
                return Obeyed()


class ReportInput(ReportFields):
    """What came of the attempt. A field that does not belong to the status is refused."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "status": "succeeded",
                    "worker_id": "host-1",
                    "lease_token": "6f1c0b0d5f7e4b0c9a8d7e6f5a4b3c2d",
                    "result": {"width": 640},
                },
                {
                    "status": "failed",
                    "worker_id": "host-1",
                    "lease_token": "6f1c0b0d5f7e4b0c9a8d7e6f5a4b3c2d",
                    "error": {"type": "Timeout", "message": "no answer in 10 s"},
                    "retry_in_seconds": 30,
                },
            ]
        }
    )

    worker_id: Segment
