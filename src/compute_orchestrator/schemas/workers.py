"""Workers on the wire."""

from typing import Any

from pydantic import ConfigDict, Field

from compute_orchestrator.schemas.values import Output, ShownMoment


class WorkerOutput(Output):
    worker_id: str
    last_seen_at: ShownMoment
    running: int
    about: dict[str, Any] | None = Field(description="What the worker says of itself, if it does.")


class WorkerListOutput(Output):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "workers": [
                        {
                            "worker_id": "host-1",
                            "last_seen_at": "2026-11-23T21:45:47.000000Z",
                            "running": 2,
                            "about": None,
                        }
                    ]
                }
            ]
        }
    )

    workers: list[WorkerOutput]
