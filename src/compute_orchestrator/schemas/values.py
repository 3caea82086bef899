"""The small types of the wire: names, durations, moments, JSON, ids."""

import json
import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from compute_orchestrator.domain.errors import PayloadTooLarge
from compute_orchestrator.domain.values import (
    LARGEST_INTEGER,
    MICROS_PER_SECOND,
    JsonText,
    Micros,
)

LONGEST_SECONDS = 31_536_000
LONGEST_WAIT_SECONDS = 60
LONGEST_NAME_BYTES = 200

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_RFC3339 = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt](\d\d:\d\d:\d\d)(?:\.(\d+))?([Zz]|[+-]\d\d:\d\d)", re.ASCII
)
_DECIMAL = re.compile(r"\d{1,8}(\.\d{1,9})?", re.ASCII)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SECOND = timedelta(seconds=1)
_MICROSECOND = timedelta(microseconds=1)
_FIRST_MOMENT = (datetime.min.replace(tzinfo=UTC) - _EPOCH) // _MICROSECOND
_LAST_MOMENT = (datetime.max.replace(tzinfo=UTC) - _EPOCH) // _MICROSECOND


class Input(BaseModel):
    """What a caller sends: strict types, no unknown fields."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class Output(BaseModel):
    """What the server answers. Answers are built as bytes; this is their picture for OpenAPI."""


def check_name(value: str) -> str:
    """1 to 200 bytes, no control characters."""
    check_short(value)
    if _CONTROL.search(value):
        raise ValueError("must not have control characters")
    return value


def check_short(value: str) -> str:
    """1 to 200 bytes."""
    if not 1 <= len(value.encode()) <= LONGEST_NAME_BYTES:
        raise ValueError(f"must have 1 to {LONGEST_NAME_BYTES} bytes")
    return value


def check_segment(value: str) -> str:
    """A name that can stand in a path: also no slash, and not a dot or two."""
    check_name(value)
    if "/" in value or value in (".", ".."):
        raise ValueError("must not have a slash, nor be . or ..")
    return value


def parse_moment(value: Any) -> Micros:
    """An RFC 3339 time with an offset."""
    match = _RFC3339.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        lost_plus = isinstance(value, str) and value[10:11] in ("T", "t") and value[-6:-5] == " "
        hint = "; in a query, write + as %2B" if lost_plus else ""
        raise ValueError(f"must be an RFC 3339 time with an offset, as 2026-11-23T21:45:47Z{hint}")
    date, clock, fraction, offset = match.groups()
    leap = clock.endswith(":60")  # RFC 3339 knows leap seconds, Python does not
    clock = f"{clock[:-2]}59" if leap else clock
    offset = "+00:00" if offset in "Zz" else offset
    try:
        moment = datetime.fromisoformat(f"{date}T{clock}{offset}")
    except ValueError:
        raise ValueError("is no time that exists") from None
    seconds = (moment - _EPOCH) // _SECOND + int(leap)
    micros = seconds * MICROS_PER_SECOND + int((fraction or "")[:6].ljust(6, "0"))
    if not _FIRST_MOMENT <= micros <= _LAST_MOMENT:
        raise ValueError("must lie between the years 1 and 9999 in UTC")
    return Micros(micros)


@lru_cache(maxsize=4096)
def format_moment(moment: Micros) -> str:
    """RFC 3339 in UTC, always with six digits and Z, so that times compare as text."""
    return f"{(_EPOCH + timedelta(microseconds=moment)).isoformat(timespec='microseconds')[:26]}Z"


def shown_moment(moment: Micros | None) -> str | None:
    """A moment that may be missing."""
    return None if moment is None else format_moment(moment)


def to_json(value: Any) -> JsonText:
    """JSON without white space. Numbers stay equal, keys keep their order."""
    return JsonText(json.dumps(value, ensure_ascii=False, separators=(",", ":")))


Name = Annotated[str, AfterValidator(check_name), Field(min_length=1, max_length=200)]
Segment = Annotated[str, AfterValidator(check_segment), Field(min_length=1, max_length=200)]
ShortText = Annotated[str, AfterValidator(check_short), Field(min_length=1, max_length=200)]
Seconds = Annotated[float, Field(ge=0, le=LONGEST_SECONDS)]
LeaseSeconds = Annotated[float, Field(ge=1, le=86_400)]
WaitSeconds = Annotated[float, Field(ge=0, le=LONGEST_WAIT_SECONDS)]
Moment = Annotated[
    int,
    BeforeValidator(parse_moment),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]
ShownMoment = Annotated[str, Field(json_schema_extra={"format": "date-time"})]


def parse_digits(value: Any) -> Any:
    """A whole number in a path or a query: digits and nothing else."""
    if isinstance(value, str):
        if not (value.isascii() and value.isdigit() and len(value) <= 19):
            raise ValueError("must be a whole number")
        return int(value)
    return value


def parse_decimal(value: Any) -> Any:
    """Seconds in a query: digits, and perhaps a fraction."""
    if isinstance(value, str):
        if not _DECIMAL.fullmatch(value):
            raise ValueError("must be a number of seconds")
        return float(value)
    return value


def parse_switch(value: Any) -> Any:
    """`true` or `false` in a query."""
    if isinstance(value, str):
        if value not in ("true", "false"):
            raise ValueError("must be true or false")
        return value == "true"
    return value


PathSegment = Annotated[str, AfterValidator(check_segment)]
PathId = Annotated[int, Field(ge=0, le=LARGEST_INTEGER), BeforeValidator(parse_digits)]
Switch = Annotated[bool, BeforeValidator(parse_switch)]


def fits(text: JsonText | None, largest: int, what: str) -> JsonText | None:
    """The text, if it has at most so many bytes.

    Raises PayloadTooLarge.
    """
    if text is not None and 4 * len(text) > largest and len(text.encode()) > largest:
        raise PayloadTooLarge(
            f"The {what} may have {largest} bytes as JSON, not more (ORC_MAX_{what.upper()}_BYTES)."
        )
    return text
