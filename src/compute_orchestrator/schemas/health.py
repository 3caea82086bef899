"""Probes on the wire."""

from typing import Literal

from pydantic import ConfigDict, Field

from compute_orchestrator.schemas.values import Output


class LiveOutput(Output):
    """The process runs."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"status": "alive"}]})

    status: Literal["alive"] = "alive"


class ReadyOutput(Output):
    """Why the server is ready, or not."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "status": "ready",
                    "store": "sqlite",
                    "synchronous": "FULL",
                    "schema": "0001",
                    "last_pass_seconds": 0.4,
                }
            ]
        }
    )

    status: Literal["ready", "not-ready"]
    store: str
    synchronous: str
    revision: str | None = Field(alias="schema", description="The schema's revision.")
    last_pass_seconds: float | None
