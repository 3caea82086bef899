"""What an operator asks for on the wire."""

from pydantic import ConfigDict, Field

from compute_orchestrator.schemas.values import Input, Output, Switch


class CancelQuery(Input):
    model_config = ConfigDict(strict=False, extra="forbid")

    force: Switch = Field(False, description="End a running job at once.")


class RetryQuery(Input):
    model_config = ConfigDict(strict=False, extra="forbid")

    again: Switch = Field(False, description="Also a job that succeeded.")


class ReapOutput(Output):
    """What one pass of the reaper did."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"requeued": 2, "exhausted": 0, "cancelled": 0, "pruned": 0}]
        }
    )

    requeued: int
    exhausted: int
    cancelled: int
    pruned: int
