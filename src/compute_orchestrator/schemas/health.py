"""Probes on the wire."""

from typing import Literal

from pydantic import Field

from compute_orchestrator.schemas.values import Output


class LiveOutput(Output):
    status: Literal["alive"] = "alive"


class ReadyOutput(Output):
    status: Literal["ready", "not-ready"]
    store: str
    synchronous: str
    revision: str | None = Field(alias="schema", description="The schema's revision.")
    last_pass_seconds: float | None
