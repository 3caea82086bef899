"""Queues on the wire."""

from pydantic import ConfigDict, Field

from compute_orchestrator.schemas.values import Input, Output


class QueueInput(Input):
    """What can be set on a queue."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"paused": True}]})

    paused: bool = Field(description="No claim takes from a paused queue.")


class QueueOutput(Output):
    name: str
    paused: bool
    queued: int
    delayed: int
    running: int


class QueueListOutput(Output):
    queues: list[QueueOutput]
