"""THE map: what went wrong -> HTTP status and problem+json (RFC 9457). Nowhere else."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Match

from compute_orchestrator.domain import errors
from compute_orchestrator.schemas.problems import ProblemOutput
from compute_orchestrator.schemas.values import shown_moment

MEDIA_TYPE: Final = "application/problem+json"

STATUS: Final[Mapping[type[errors.OrchestratorError], int]] = {
    errors.NotLocal: 403,
    errors.OriginRefused: 403,
    errors.JobNotFound: 404,
    errors.RequestTimeout: 408,
    errors.LeaseLost: 409,
    errors.InvalidTransition: 409,
    errors.PayloadTooLarge: 413,
    errors.UnsupportedMediaType: 415,
    errors.HostRefused: 421,
    errors.ValidationFailed: 422,
    errors.IdempotencyMismatch: 422,
    errors.StoreUnavailable: 503,
    errors.Overloaded: 503,
    errors.ShuttingDown: 503,
}

# What Starlette's router finds wrong by itself.
ROUTER_CODES: Final[Mapping[int, tuple[str, str]]] = {
    404: ("not-found", "There is nothing here"),
    405: ("method-not-allowed", "This method is not allowed here"),
}

# Pydantic's kinds of fault where something else stands in the place of an object.
NO_OBJECT: Final = frozenset({"model_type", "model_attributes_type", "dict_type"})

MOST_IN_DETAIL: Final = 3

INTERNAL: Final = "The server failed over this request. The log says more."


def problem_response(error: errors.OrchestratorError) -> Response:
    """The answer to an error of the domain."""
    headers: dict[str, str] = {}
    match error:
        case errors.ShuttingDown():
            headers = {"Retry-After": str(error.retry_after_seconds), "Connection": "close"}
        case errors.Unavailable():
            headers = {"Retry-After": str(error.retry_after_seconds)}
        case errors.RequestTimeout() | errors.PayloadTooLarge():
            headers = {"Connection": "close"}  # the rest of the body may still be on its way
        case _:
            pass
    return Response(problem_json(error), _status(error), headers, media_type=MEDIA_TYPE)


def problem_json(error: errors.OrchestratorError) -> str:
    """An error of the domain as a problem's body."""
    extra: dict[str, Any] = {}
    match error:
        case errors.LeaseLost():
            extra = {
                "holder": error.holder,
                "locked_at": shown_moment(error.locked_at),
                "last_heartbeat_at": shown_moment(error.last_heartbeat_at),
            }
        case errors.InvalidTransition():
            extra = {"job_status": error.status}
        case errors.ValidationFailed():
            extra = {"errors": [{"where": where, "what": what} for where, what in error.errors]}
        case _:
            pass
    return _body(_status(error), error.code, error.title, error.detail, extra)


def _status(error: errors.OrchestratorError) -> int:
    return STATUS.get(type(error), 500)


def _body(
    status: int, code: str, title: str, detail: str, extra: Mapping[str, Any] | None = None
) -> str:
    body = {
        "type": f"urn:compute-orchestrator:problem:{code}",
        "title": title,
        "status": status,
        "detail": detail,
        "code": code,
        **(extra or {}),
    }
    return json.dumps(body, ensure_ascii=False)


def _problem(
    status: int,
    code: str,
    title: str,
    detail: str,
    headers: Mapping[str, str] | None = None,
) -> Response:
    body = _body(status, code, title, detail)
    return Response(body, status, dict(headers or {}), media_type=MEDIA_TYPE)


def validation_failed(found: Sequence[Any]) -> errors.ValidationFailed:
    """Pydantic's errors as ours: where, and what."""
    faults = [(where(fault["loc"]), _what(fault)) for fault in found]
    listed = [f"{place}: {what}" for place, what in faults[:MOST_IN_DETAIL]]
    if len(faults) > MOST_IN_DETAIL:
        listed.append(f"and {len(faults) - MOST_IN_DETAIL} more")
    return errors.ValidationFailed(f"The request is not valid. {'; '.join(listed)}", faults)


def _what(fault: Mapping[str, Any]) -> str:
    if fault["type"] in NO_OBJECT:
        return "must be a JSON object"
    return str(fault["msg"]).removeprefix("Value error, ")


def where(location: Sequence[str | int]) -> str:
    """A place in the request in dots: body.retry.factor, query.limit."""
    return ".".join(map(str, location))


async def _on_domain_error(_request: Request, error: errors.OrchestratorError) -> Response:
    return problem_response(error)


async def _on_invalid(_request: Request, error: RequestValidationError) -> Response:
    return problem_response(validation_failed(error.errors()))


async def _on_router_error(request: Request, error: HTTPException) -> Response:
    code, title = ROUTER_CODES.get(error.status_code, ("internal-error", "The server failed"))
    detail = f"{request.method} {request.url.path}: {error.detail}"
    headers = dict(error.headers or {})
    if error.status_code == 405:
        headers["Allow"] = ", ".join(_methods_of(request))
        detail = f"{detail}. Allowed here: {headers['Allow']}."
    return _problem(error.status_code, code, title, detail, headers=headers)


def _methods_of(request: Request) -> list[str]:
    """All methods of a path; the router knows only those of the first route that has it."""
    methods: set[str] = set()
    for route in request.app.routes:
        match, _ = route.matches(dict(request.scope))
        if match is not Match.NONE:
            methods.update(getattr(route, "methods", None) or ())
    return sorted(methods)


async def _on_any_error(_request: Request, _error: Exception) -> Response:
    return _problem(500, "internal-error", "The server failed", INTERNAL)


async def _on_client_gone(_request: Request, _error: ClientDisconnect) -> Response:
    """Nobody is there to read it; it only keeps the log clean."""
    return Response(status_code=400)


def map_errors(app: FastAPI) -> None:
    """Install the map."""
    app.exception_handler(errors.OrchestratorError)(_on_domain_error)
    app.exception_handler(RequestValidationError)(_on_invalid)
    app.exception_handler(HTTPException)(_on_router_error)
    app.exception_handler(ClientDisconnect)(_on_client_gone)
    app.exception_handler(Exception)(_on_any_error)


def _codes(status: int) -> str:
    codes = [error.code for error, its_status in STATUS.items() if its_status == status]
    return ", ".join(codes or ["internal-error"])


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The problem answers of a route, for OpenAPI; those that every route has are added."""
    return {
        status: {
            "model": ProblemOutput,
            "description": "Problem: " + _codes(status),
            "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemOutput"}}},
        }
        for status in sorted({*statuses, 403, 421, 422, 500, 503})
    }
