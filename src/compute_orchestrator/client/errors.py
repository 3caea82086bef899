"""What a call can raise, in one tree.

ClientError
├── NoAnswer                    the call was sent or not, no answer came: the outcome is unknown
│   ├── ConnectFailed           (no connection was made: nothing was sent)
│   ├── ConnectionBroken        (it ended before the answer was whole)
│   └── CallTimedOut
├── UnusableAnswer              an answer that is not of the protocol
├── NoResult                    a job that is waited for has none; `job` is as it was last seen
│   ├── JobFailed               (failed, or exhausted)
│   ├── JobCancelled
│   └── ResultTimeout           (not yet; a TimeoutError too)
└── Problem                     the server refused; `status`, `code`, `detail`, `extra`
    ├── BadRequest              any other 4xx
    │   ├── NotFound            404
    │   │   └── JobNotFound            job-not-found
    │   ├── Conflict            409
    │   │   ├── LeaseLost              lease-lost
    │   │   └── InvalidTransition      invalid-transition
    │   ├── BadInput            400, 408, 413, 415, 422
    │   │   ├── ValidationFailed       validation-error
    │   │   ├── IdempotencyMismatch    idempotency-mismatch
    │   │   ├── PayloadTooLarge        payload-too-large
    │   │   ├── UnsupportedMediaType   unsupported-media-type
    │   │   └── RequestTimeout         request-timeout
    │   ├── Refused             401, 403, 421
    │   │   ├── NotLocal               not-local
    │   │   ├── OriginRefused          origin-refused
    │   │   └── HostRefused            host-refused
    │   └── MethodNotAllowed           method-not-allowed
    └── ServerFailed            any other 5xx
        ├── InternalError              internal-error
        └── Unavailable         503; `retry_after_seconds`
            ├── StoreUnavailable       store-unavailable
            ├── Overloaded             overloaded
            └── ShuttingDown           shutting-down

A problem becomes the class of its `code`; a code that is not known here, the class of its status.
"""

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, ClassVar, cast

if TYPE_CHECKING:
    from compute_orchestrator.client.models import Job


class ClientError(Exception):
    """The root of all that a call can raise."""


class NoAnswer(ClientError):
    """No answer came. Whether the call took effect is not known; it may be repeated."""


class ConnectFailed(NoAnswer):
    """No connection could be made: nothing was sent."""


class ConnectionBroken(NoAnswer):
    """The connection ended before the answer was whole."""


class CallTimedOut(NoAnswer):
    """The answer did not come in time."""


class UnusableAnswer(ClientError):
    """What answered does not speak this protocol: a proxy's page, or a server of another kind."""


class NoResult(ClientError):
    """The job that is waited for has no result; `job` is as it was last seen."""

    def __init__(self, job: "Job", what: str) -> None:
        super().__init__(f"job {job.id} ({job.name}) {what}")
        self.job = job


class JobFailed(NoResult):
    """It ended without success; `job.error` is what its worker said, if it said something."""

    def __init__(self, job: "Job") -> None:
        error = job.error or {}
        words = ": ".join(str(error[part]) for part in ("type", "message") if error.get(part))
        ended = "is exhausted" if job.status == "exhausted" else "failed"
        super().__init__(job, f"{ended}: {words}" if words else ended)


class JobCancelled(NoResult):
    def __init__(self, job: "Job") -> None:
        super().__init__(job, "was cancelled")


class ResultTimeout(NoResult, TimeoutError):
    """It is not final yet. It may be waited for again."""

    def __init__(self, job: "Job", timeout_seconds: float) -> None:
        super().__init__(job, f"was not final within {timeout_seconds:g} s: {job.status}")


class Problem(ClientError):
    """The server's answer is a problem."""

    def __init__(
        self,
        detail: str,
        *,
        status: int,
        code: str | None = None,
        extra: Mapping[str, object] | None = None,
        retry_after_seconds: float | None = None,
    ) -> None:
        super().__init__(f"{code or status}: {detail}")
        self.status = status
        self.detail = detail
        self.code = code
        self.extra: Mapping[str, object] = extra or {}
        self.retry_after_seconds = retry_after_seconds


class BadRequest(Problem):
    """The call can't be answered as it is; repeating it would not help."""


class NotFound(BadRequest):
    """What was asked for is not there."""


class JobNotFound(NotFound):
    known_code: ClassVar[str] = "job-not-found"


class Conflict(BadRequest):
    """The job stands elsewhere."""


class LeaseLost(Conflict):
    """The lease is no longer this caller's. `holder` is who has the job now, if anybody."""

    known_code: ClassVar[str] = "lease-lost"

    @property
    def holder(self) -> str | None:
        holder = self.extra.get("holder")
        return holder if isinstance(holder, str) else None


class InvalidTransition(Conflict):
    known_code: ClassVar[str] = "invalid-transition"


class BadInput(BadRequest):
    """The server can't accept what was sent."""


class ValidationFailed(BadInput):
    known_code: ClassVar[str] = "validation-error"

    @property
    def errors(self) -> list[dict[str, str]]:
        """Where and what, as the server says it."""
        errors = self.extra.get("errors")
        return cast("list[dict[str, str]]", errors) if isinstance(errors, list) else []


class IdempotencyMismatch(BadInput):
    """The key was used before, with another body."""

    known_code: ClassVar[str] = "idempotency-mismatch"


class PayloadTooLarge(BadInput):
    known_code: ClassVar[str] = "payload-too-large"


class UnsupportedMediaType(BadInput):
    known_code: ClassVar[str] = "unsupported-media-type"


class RequestTimeout(BadInput):
    """The request took too long to arrive."""

    known_code: ClassVar[str] = "request-timeout"


class Refused(BadRequest):
    """This caller may not call."""


class NotLocal(Refused):
    known_code: ClassVar[str] = "not-local"


class OriginRefused(Refused):
    known_code: ClassVar[str] = "origin-refused"


class HostRefused(Refused):
    known_code: ClassVar[str] = "host-refused"


class MethodNotAllowed(BadRequest):
    known_code: ClassVar[str] = "method-not-allowed"


class ServerFailed(Problem):
    """The server failed. Whether the call took effect is not known; it may be repeated."""


class InternalError(ServerFailed):
    known_code: ClassVar[str] = "internal-error"


class Unavailable(ServerFailed):
    """Not now; `retry_after_seconds` says when, if the server did."""


class StoreUnavailable(Unavailable):
    known_code: ClassVar[str] = "store-unavailable"


class Overloaded(Unavailable):
    known_code: ClassVar[str] = "overloaded"


class ShuttingDown(Unavailable):
    known_code: ClassVar[str] = "shutting-down"


def _below(kind: type[Problem]) -> Iterator[type[Problem]]:
    for child in kind.__subclasses__():
        yield child
        yield from _below(child)


BY_CODE: Mapping[str, type[Problem]] = {
    code: kind for kind in _below(Problem) if (code := kind.__dict__.get("known_code"))
}

_BY_STATUS: Mapping[int, type[Problem]] = {
    400: BadInput,
    401: Refused,
    403: Refused,
    404: NotFound,
    405: MethodNotAllowed,
    408: RequestTimeout,
    409: Conflict,
    413: PayloadTooLarge,
    415: UnsupportedMediaType,
    421: HostRefused,
    422: BadInput,
    500: InternalError,
    503: Unavailable,
}

UNTOLD_STATUS = 400
"""Of an item's problem that does not tell its own: the item was refused, the call was not."""


def problem_from(status: int, body: bytes, *, retry_after_seconds: float | None) -> Problem:
    """The error for an answer of 400 and above, whoever wrote it."""
    return _problem(status, _fields(body), retry_after_seconds)


def problem_of(fields: Mapping[str, object]) -> Problem:
    """The error for the `problem` of one item in an answer about many."""
    status = fields.get("status")
    return _problem(status if isinstance(status, int) else UNTOLD_STATUS, fields, None)


def kind_of(status: int, code: str | None) -> type[Problem]:
    if code is not None and code in BY_CODE:
        return BY_CODE[code]
    return _BY_STATUS.get(status, ServerFailed if status >= 500 else BadRequest)


def _problem(
    status: int, fields: Mapping[str, object], retry_after_seconds: float | None
) -> Problem:
    code = fields.get("code")
    code = code if isinstance(code, str) else None
    detail = fields.get("detail") or fields.get("title") or f"the server answered {status}"
    return kind_of(status, code)(
        str(detail),
        status=status,
        code=code,
        extra=fields,
        retry_after_seconds=retry_after_seconds,
    )


def _fields(body: bytes) -> Mapping[str, object]:
    """The problem's members; none, where a proxy answered with a page of its own."""
    try:
        parsed: object = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return cast("dict[str, object]", parsed) if isinstance(parsed, dict) else {}
