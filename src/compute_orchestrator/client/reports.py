"""What a lease holder says of its attempt."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from compute_orchestrator.client.models import Json, Status


@dataclass(frozen=True, kw_only=True)
class Report:
    """One of four: make it with the method that is named after what happened."""

    status: Status
    result: Json = None
    error: Mapping[str, object] | None = None
    retryable: bool | None = None
    retry_in_seconds: float | None = None
    run_in_seconds: float | None = None

    @classmethod
    def succeeded(cls, result: Json = None) -> Self:
        return cls(status=Status.SUCCEEDED, result=result)

    @classmethod
    def failed(
        cls,
        error: Mapping[str, object] | None = None,
        *,
        retryable: bool = True,
        retry_in_seconds: float | None = None,
    ) -> Self:
        return cls(
            status=Status.FAILED,
            error=error,
            retryable=retryable,
            retry_in_seconds=retry_in_seconds,
        )

    @classmethod
    def released(cls, *, run_in_seconds: float | None = None) -> Self:
        """Hand the job back; it costs none of its retries."""
        return cls(status=Status.QUEUED, run_in_seconds=run_in_seconds)

    @classmethod
    def cancelled(cls) -> Self:
        """The cancel request was obeyed."""
        return cls(status=Status.CANCELLED)

    def fields(self) -> dict[str, object]:
        """What goes over the wire; a field that says nothing is left out."""
        fields: dict[str, object] = {
            "status": self.status.value,
            "result": self.result,
            "error": self.error,
            "retryable": self.retryable,
            "retry_in_seconds": self.retry_in_seconds,
            "run_in_seconds": self.run_in_seconds,
        }
        return {name: value for name, value in fields.items() if value is not None}
