"""How a task ended, and what is reported of it."""

import asyncio
import json
import math
import traceback
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from pydantic_core import to_jsonable_python

from compute_orchestrator.client.errors import ClientError
from compute_orchestrator.client.models import Json, Status
from compute_orchestrator.client.reports import Report
from compute_orchestrator.client.retries import CONTENT_REFUSED

LONGEST_SECONDS = 31_536_000

# With six bytes a character at worst, well below the server's 64 KiB for an error.
LONGEST_TRACEBACK = 8_000
LONGEST_MESSAGE = 1_000
LONGEST_TYPE = 200

LONGEST_LOGGED = 200

# The files of this package that stand between the worker and a task.
CALLERS = frozenset(
    str(Path(__file__).parent / name) for name in ("outcomes.py", "calling.py", "child.py")
)


class Retry(Exception):
    """Raise it to fail this attempt and choose when the next one runs."""

    def __init__(self, reason: str = "", *, in_seconds: float | None = None) -> None:
        super().__init__(reason or "asked to run again")
        self.in_seconds = None if in_seconds is None else _check_seconds(in_seconds)


class Permanent(Exception):
    """Raise it to fail the job for good: no retry could do better."""


class Snooze(Exception):
    """Raise it to hand the job back until later; it costs no retry."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"snoozed for {seconds:g} s")
        self.seconds = _check_seconds(seconds)


class Cancelled(Exception):
    """This work counts no more. `Context.check_cancelled()` raises it; let it pass.

    A cancel was requested, the lease is lost, or the worker stops.
    """

    def __init__(self) -> None:
        super().__init__("told to stop")


class RaisedInProcess(Exception):
    """What a task raised in a process of its own: type and message, since it can't come itself."""


class PayloadMismatch(Permanent):
    """The payload does not fit the task's arguments."""


class ResultUnusable(Permanent):
    """The result can't be sent as JSON, or is not of the type that the task says it returns."""


# What the server would refuse as JSON raises ValueError here.
STRICT_JSON = json.JSONEncoder(ensure_ascii=False, allow_nan=False)

# What makes a result JSON.
Plain = Callable[[object], Json]


def as_json(result: object) -> Json:
    """The result as JSON, by what it is itself."""
    return checked(result, to_jsonable_python)


def checked(result: object, plain: Plain) -> Json:
    """What `plain` makes of the result, if the server takes it as JSON."""
    if result is None:
        return None
    try:
        made = plain(result)
        STRICT_JSON.encode(made).encode()
    except Exception as error:
        kind = type(result).__qualname__
        raise ResultUnusable(f"a result of type {kind} can't be sent as JSON: {error}") from error
    return made


@dataclass(frozen=True)
class Returned:
    result: Json


@dataclass(frozen=True)
class Raised:
    error: BaseException
    told: Mapping[str, object] | None = None
    """How the error was described where it was raised, if that was in another process."""


@dataclass(frozen=True)
class Stopped:
    """It was told to stop, and did: by asyncio's cancellation, by `Cancelled`, or by a kill."""

    error: BaseException


Ended = Returned | Raised | Stopped

STOPS = (asyncio.CancelledError, Cancelled)


async def end_of(function: Callable[[], Awaitable[object]], plain: Plain = as_json) -> Ended:
    """Await it. `plain` makes its result JSON, or raises ResultUnusable."""
    try:
        return Returned(plain(await function()))
    except BaseException as error:  # noqa: BLE001 - sys.exit() in a task must not end the worker
        return _end_by(error)


def end_of_plain(function: Callable[[], object], plain: Plain = as_json) -> Ended:
    """Call it. `plain` makes its result JSON, or raises ResultUnusable."""
    try:
        return Returned(plain(function()))
    except BaseException as error:  # noqa: BLE001 - sys.exit() in a task must not end the worker
        return _end_by(error)


def _end_by(error: BaseException) -> Ended:
    return Stopped(error) if isinstance(error, STOPS) else Raised(error)


def report_of(ended: Ended) -> Report:
    """What a task that ended by itself has to say."""
    match ended:
        case Returned(result):
            return Report.succeeded(result)
        case Raised(Snooze() as snooze):
            return Report.released(run_in_seconds=snooze.seconds)
        case Raised(Retry() as retry, told):
            return Report.failed(told or describe(retry), retry_in_seconds=retry.in_seconds)
        case Raised(Permanent() as permanent, told):
            return Report.failed(told or describe(permanent), retryable=False)
        case Raised(error, told):
            return Report.failed(told or describe(error))
        case Stopped(error):
            return Report.failed(describe(error))


def second_best(report: Report, refusal: ClientError) -> Report | None:
    """What to say instead, where the server can't take the result or the error as it is.

    Without it the job would run again, to the same end, until its retries are used up.
    """
    if not isinstance(refusal, CONTENT_REFUSED):
        return None
    if report.status is Status.SUCCEEDED:
        error = {"type": "ResultRefused", "message": _shown(refusal.detail, LONGEST_MESSAGE)}
        return Report.failed(error, retryable=False)
    if report.status is Status.FAILED and report.error is not None:
        return Report.failed(
            retryable=report.retryable is not False, retry_in_seconds=report.retry_in_seconds
        )
    return None


def describe(error: BaseException) -> dict[str, object]:
    """The error of a failed attempt, short enough and clean enough to be sent."""
    kind = _shown(type(error).__qualname__, LONGEST_TYPE)
    described: dict[str, object] = {"type": kind, "message": _message(error)}
    own = _own_part(error.__traceback__)
    if own is not None:
        lines = "".join(traceback.format_exception(type(error), error, own))
        described["traceback"] = _clean(lines)[-LONGEST_TRACEBACK:]
    return described


def _own_part(trace: TracebackType | None) -> TracebackType | None:
    """From the task's own first frame on."""
    while trace is not None and trace.tb_frame.f_code.co_filename in CALLERS:
        trace = trace.tb_next
    return trace


def in_short(error: BaseException) -> str:
    """The error on one line of the log."""
    words = _message(error)
    if not isinstance(error, RaisedInProcess):
        words = f"{type(error).__qualname__}: {words}"
    return _shown(" ".join(words.split()), LONGEST_LOGGED)


def _message(error: BaseException) -> str:
    try:
        return _shown(str(error), LONGEST_MESSAGE)
    except Exception:  # noqa: BLE001 - a task's error may have a broken __str__
        return "(its message could not be made)"


def _shown(text: str, longest: int) -> str:
    clean = _clean(text)
    return clean if len(clean) <= longest else f"{clean[: longest - 1]}…"


def _clean(text: str) -> str:
    """Without what the server refuses in a string: NUL and lone surrogates."""
    return text.replace("\0", "�").encode(errors="replace").decode()


def _check_seconds(seconds: float) -> float:
    if not (math.isfinite(seconds) and 0 <= seconds <= LONGEST_SECONDS):
        raise ValueError(f"must be 0 to {LONGEST_SECONDS} seconds: {seconds}")
    return seconds
