"""Workers on the wire."""

from typing import Any

from pydantic import Field

from compute_orchestrator.schemas.values import Output, ShownMoment


class WorkerOutput(Output):
    worker_id: str
    last_seen_at: ShownMoment
    running: int
    about: dict[str, Any] | None = Field(description="What the worker says of itself, if it does.")


class WorkerListOutput(Output):
    workers: list[WorkerOutput]
