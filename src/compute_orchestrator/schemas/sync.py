"""Sync on the wire: a busy worker's reports, heartbeats and claim in one call."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar, cast

from pydantic import ConfigDict, Field, ValidationError, ValidatorFunctionWrapHandler, WrapValidator

from compute_orchestrator.domain.values import LARGEST_INTEGER, JsonText
from compute_orchestrator.schemas.claims import EXAMPLE_CLAIMED, ClaimFields, ClaimOutput
from compute_orchestrator.schemas.heartbeats import HeartbeatFields
from compute_orchestrator.schemas.problems import ProblemOutput
from compute_orchestrator.schemas.reports import ReportFields
from compute_orchestrator.schemas.values import (
    Input,
    Output,
    ShortText,
    ShownMoment,
    to_json,
)

MOST_ITEMS = 1_000

ItemId = Annotated[int, Field(ge=0, le=LARGEST_INTEGER)]


@dataclass(frozen=True, slots=True)
class BadItem:
    """An item that breaks the rules, and no other: it is answered by itself."""

    given: Any
    faults: Sequence[Any]


def _alone(value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
    try:
        return handler(value)
    except ValidationError as error:
        return BadItem(value, error.errors(include_url=False, include_input=False))


One = TypeVar("One", bound=Input)
Items = Annotated[list[Annotated[One, WrapValidator(_alone)]], Field(max_length=MOST_ITEMS)]


class SyncReportInput(ReportFields):
    """One report."""

    id: ItemId


class SyncHeartbeatInput(HeartbeatFields):
    """One heartbeat."""

    id: ItemId


class SyncClaimInput(ClaimFields):
    """A claim of up to `limit` jobs. `wait_seconds` counts only where the call carries neither
    reports nor heartbeats.
    """

    limit: Annotated[int, Field(ge=1, le=MOST_ITEMS)]


class AboutInput(Input):
    """What a worker says of itself, shown in `GET /workers`."""

    host: ShortText | None = None
    pid: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = None
    sdk: ShortText | None = Field(None, description="The library it is written with, its version.")
    code: ShortText | None = Field(None, description="The version of the code that it runs.")

    def to_json(self) -> JsonText:
        return to_json(self.model_dump(exclude_none=True))


class SyncInput(Input):
    """All that a busy worker has to say and to ask. Each item is answered by itself."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "reports": [
                        {
                            "id": 17,
                            "lease_token": "6f1c0b0d5f7e4b0c9a8d7e6f5a4b3c2d",
                            "status": "succeeded",
                            "result": {"width": 640},
                        }
                    ],
                    "heartbeats": [{"id": 18, "lease_token": "0c9a8d7e6f5a4b3c2d6f1c0b0d5f7e4b"}],
                    "claim": {"queues": ["images"], "limit": 1, "request_id": "host-1/42"},
                }
            ]
        }
    )

    about: AboutInput | None = None
    reports: Items[SyncReportInput] = Field([])
    heartbeats: Items[SyncHeartbeatInput] = Field([])
    claim: SyncClaimInput | None = None


class ReportItemOutput(Output):
    id: int | None
    status: str | None = Field(None, description="Where the job stands now.")
    problem: ProblemOutput | None = Field(None, description="As the single call would answer.")


class HeartbeatItemOutput(Output):
    id: int | None
    lease_expires_at: ShownMoment | None = None
    cancel_requested: bool | None = None
    problem: ProblemOutput | None = Field(None, description="As the single call would answer.")


class SyncOutput(Output):
    """The items' answers in the order of the call, and the jobs that were claimed."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "reports": [{"id": 17, "status": "succeeded"}],
                    "heartbeats": [
                        {
                            "id": 18,
                            "lease_expires_at": "2026-11-23T21:46:47.000000Z",
                            "cancel_requested": False,
                        }
                    ],
                    "jobs": [EXAMPLE_CLAIMED],
                }
            ]
        }
    )

    reports: list[ReportItemOutput]
    heartbeats: list[HeartbeatItemOutput]
    jobs: list[ClaimOutput]


def given_id(item: Input | BadItem) -> int | None:
    """The id by which an item is answered, if it has one."""
    if not isinstance(item, BadItem):
        return getattr(item, "id", None)
    given = cast("dict[str, object]", item.given) if isinstance(item.given, dict) else {}
    value = given.get("id")
    return value if type(value) is int and 0 <= value <= LARGEST_INTEGER else None  # no bool
