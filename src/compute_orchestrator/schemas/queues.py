"""Queues on the wire."""

from pydantic import ConfigDict, Field
from pydantic.config import JsonDict

from compute_orchestrator.schemas.values import Input, Output

EXAMPLE: JsonDict = {
    "name": "images",
    "paused": False,
    "queued": 12,
    "delayed": 3,
    "running": 4,
}


class QueueInput(Input):
    """What can be set on a queue."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"paused": True}]})

    paused: bool = Field(description="No claim takes from a paused queue.")


class QueueOutput(Output):
    """A queue, and what it holds now."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE]})

    name: str
    paused: bool
    queued: int
    delayed: int
    running: int


class QueueListOutput(Output):
    model_config = ConfigDict(json_schema_extra={"examples": [{"queues": [EXAMPLE]}]})

    queues: list[QueueOutput]
