"""What a producer says of a job that it wants made."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypedDict, Unpack

from compute_orchestrator.client.models import Json


class JobOptions(TypedDict, total=False):
    """What a job may be given; what is left out is the server's default."""

    queue: str
    priority: int
    max_retries: int
    lease_seconds: float
    timeout_seconds: float
    run_at: datetime
    run_in_seconds: float
    tags: Sequence[str]
    retry: Mapping[str, float]


@dataclass(frozen=True, init=False)
class NewJob:
    """A job to be made: `NewJob("resize", {"width": 3}, queue="images", max_retries=5)`."""

    name: str
    payload: Json
    options: JobOptions

    def __init__(self, name: str, payload: Json = None, **options: Unpack[JobOptions]) -> None:
        for field, value in (("name", name), ("payload", payload), ("options", options)):
            object.__setattr__(self, field, value)

    def fields(self) -> dict[str, object]:
        """What goes over the wire; a field that says nothing is left out."""
        fields: dict[str, object] = {"name": self.name, "payload": self.payload, **self.options}
        if (run_at := self.options.get("run_at")) is not None:
            fields["run_at"] = moment(run_at)
        return {name: value for name, value in fields.items() if value is not None}


def moment(value: datetime) -> str:
    """RFC 3339; a time without an offset would be read differently on another machine."""
    if value.tzinfo is None:
        raise ValueError(f"{value!r} has no time zone")
    return value.isoformat()
