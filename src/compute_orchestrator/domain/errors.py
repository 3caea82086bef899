"""The errors that a caller can be told about.

OrchestratorError
├── NotFound
│   └── JobNotFound          job-not-found
├── Conflict
│   ├── LeaseLost            lease-lost
│   └── InvalidTransition    invalid-transition
├── BadInput
│   ├── ValidationFailed     validation-error
│   ├── IdempotencyMismatch  idempotency-mismatch
│   ├── PayloadTooLarge      payload-too-large
│   ├── UnsupportedMediaType unsupported-media-type
│   └── RequestTimeout       request-timeout
├── Refused
│   ├── NotLocal             not-local
│   ├── OriginRefused        origin-refused
│   └── HostRefused          host-refused
├── Unavailable              (ask again after `retry_after_seconds`)
│   ├── StoreUnavailable     store-unavailable
│   ├── Overloaded           overloaded
│   └── ShuttingDown         shutting-down
└── StartupError             (never over HTTP: the server can't start)
    ├── StoreOwned
    ├── SchemaBehind
    ├── SchemaUnknown
    └── UnsupportedStore

Each class that reaches a client has a stable `code`; `routes/problems.py` says which HTTP status.
"""

from collections.abc import Sequence
from typing import ClassVar

from compute_orchestrator.domain.values import JobId, Micros


class OrchestratorError(Exception):
    """The root. `detail` says in words what is wrong and what to do."""

    code: ClassVar[str] = "internal-error"
    title: ClassVar[str] = "The server failed"

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class NotFound(OrchestratorError):
    """What was asked for is not here."""


class JobNotFound(NotFound):
    code = "job-not-found"
    title = "There is no such job"

    def __init__(self, job_id: JobId) -> None:
        super().__init__(f"There is no job {job_id}.")
        self.job_id = job_id


class Conflict(OrchestratorError):
    """The request is well formed, but the job stands elsewhere."""


class LeaseLost(Conflict):
    """The token is not (or no longer) the lease of this job. Says who holds it now, if anybody."""

    code = "lease-lost"
    title = "The lease is not yours"

    def __init__(
        self,
        detail: str,
        *,
        holder: str | None = None,
        locked_at: Micros | None = None,
        last_heartbeat_at: Micros | None = None,
    ) -> None:
        super().__init__(detail)
        self.holder = holder
        self.locked_at = locked_at
        self.last_heartbeat_at = last_heartbeat_at


class InvalidTransition(Conflict):
    code = "invalid-transition"
    title = "The job can't make this move"

    def __init__(self, detail: str, *, status: str) -> None:
        super().__init__(detail)
        self.status = status


class BadInput(OrchestratorError):
    """The request can't be understood or accepted as it is."""


class ValidationFailed(BadInput):
    """`errors` are pairs of where and what."""

    code = "validation-error"
    title = "The request is not valid"

    def __init__(self, detail: str, errors: Sequence[tuple[str, str]] = ()) -> None:
        super().__init__(detail)
        self.errors = list(errors)


class IdempotencyMismatch(BadInput):
    code = "idempotency-mismatch"
    title = "The key was used for something else"


class PayloadTooLarge(BadInput):
    code = "payload-too-large"
    title = "Too large"


class UnsupportedMediaType(BadInput):
    code = "unsupported-media-type"
    title = "The body must be JSON"


class RequestTimeout(BadInput):
    code = "request-timeout"
    title = "The request took too long to arrive"


class Refused(OrchestratorError):
    """This caller may not call."""


class NotLocal(Refused):
    code = "not-local"
    title = "Only this machine may call"


class OriginRefused(Refused):
    code = "origin-refused"
    title = "No calls from other web pages"


class HostRefused(Refused):
    code = "host-refused"
    title = "The server does not go by that name"


class Unavailable(OrchestratorError):
    """Not now. Ask again after `retry_after_seconds`."""

    def __init__(self, detail: str, *, retry_after_seconds: int = 1) -> None:
        super().__init__(detail)
        self.retry_after_seconds = retry_after_seconds


class StoreUnavailable(Unavailable):
    """The store failed or is away. Whether a write took effect is not known: ask again."""

    code = "store-unavailable"
    title = "The store is not available"


class Overloaded(Unavailable):
    code = "overloaded"
    title = "Too many calls wait"


class ShuttingDown(Unavailable):
    code = "shutting-down"
    title = "The server is shutting down"


class StartupError(OrchestratorError):
    """The server can't start as it was told to."""


class StoreOwned(StartupError):
    """Another server process owns the SQLite file."""


class SchemaBehind(StartupError):
    """The store's schema is older than this version needs, and is migrated by a command."""


class SchemaUnknown(StartupError):
    """The store's schema is one that this version does not know: a newer one made it."""


class UnsupportedStore(StartupError):
    """The database URL names a store that this version does not speak to, or one too old."""
