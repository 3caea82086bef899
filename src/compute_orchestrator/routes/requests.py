"""How a request is read: a body that is strict JSON, whole and in time; no unknown parameters.

FastAPI's own parsing takes NaN, lone surrogates and any content type from old clients, has no
deadline, and ignores unknown query parameters. `ProtocolRoute` reads first and hands on.
"""

import asyncio
import math
import re
from collections.abc import Callable, Coroutine, Iterable
from functools import cached_property
from typing import Any, Final
from urllib.parse import parse_qsl, unquote_to_bytes

from fastapi import Request, Response
from fastapi.routing import APIRoute
from pydantic_core import from_json
from starlette.requests import ClientDisconnect

from compute_orchestrator.domain.errors import (
    PayloadTooLarge,
    RequestTimeout,
    ShuttingDown,
    UnsupportedMediaType,
    ValidationFailed,
)
from compute_orchestrator.domain.values import LARGEST_INTEGER

DEEPEST: Final = 100
DRAINED_BYTES: Final = 64 * 1024 * 1024
"""How much of a body that is too large is thrown away so that its sender sees the answer."""

# Escapes (NUL), integers that may be too long, exponents: only then every value is
# looked at; other JSON can't hold what is refused.
_SUSPICIOUS = re.compile(rb"\\u|[0-9]{19}|[0-9.][eE]\+?[0-9]{3}")


class Receiver:
    """Receives bodies: how large one may be, in bytes, and how long it may take, in seconds.

    `close` ends the wait for all that are still on their way.
    """

    def __init__(self, max_body_bytes: int, receive_timeout_seconds: float) -> None:
        self._max_body_bytes = max_body_bytes
        self._receive_timeout_seconds = receive_timeout_seconds
        self._deadlines: set[asyncio.Timeout] = set()
        self._closing = False

    def close(self) -> None:
        """Wait for no body any more."""
        self._closing = True
        for deadline in self._deadlines:
            deadline.reschedule(0)

    async def receive(self, request: Request) -> bytes:
        """The whole body.

        Raises PayloadTooLarge, RequestTimeout, ShuttingDown, ClientDisconnect.
        """
        deadline = asyncio.timeout(self._receive_timeout_seconds)
        self._deadlines.add(deadline)
        try:
            async with deadline:
                return await _receive(request, self._max_body_bytes)
        except TimeoutError:
            if self._closing:
                raise ShuttingDown("The server is shutting down.") from None
            raise RequestTimeout(
                f"The body did not arrive within {self._receive_timeout_seconds:g} seconds."
            ) from None
        finally:
            self._deadlines.discard(deadline)


class CheckedRequest(Request):
    """A request whose body was read and parsed before FastAPI asks for it."""

    checked_body: bytes = b""
    checked_json: Any = None

    async def body(self) -> bytes:
        return self.checked_body

    async def json(self) -> Any:
        return self.checked_json


class ProtocolRoute(APIRoute):
    """A route that reads its requests as the protocol says."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        answer = super().get_route_handler()
        takes_body = self.body_field is not None
        reads_body = takes_body or self.methods != {"GET"}

        async def handle(request: Request) -> Response:
            self.check_target(request)
            if reads_body:
                request = await read_request(request, takes_body=takes_body)
            return await answer(request)

        return handle

    @cached_property
    def query_names(self) -> frozenset[str]:
        """The query parameters that this route takes, those of its query models too."""
        names: set[str] = set()
        for field in self.dependant.query_params:
            model_fields = getattr(field.field_info.annotation, "model_fields", None)
            names.update(model_fields or [field.alias])
        return frozenset(names)

    def check_target(self, request: Request) -> None:
        """Refuse bad UTF-8 in path and query, and query parameters that are not known.

        Raises ValidationFailed.
        """
        if not request.scope["path"].isascii():
            _check_utf8("path", request.scope.get("raw_path") or b"")
        query: bytes = request.scope["query_string"]
        if not query:
            return
        _check_utf8("query", query)
        given = {name for name, _ in parse_qsl(query.decode("latin-1"), keep_blank_values=True)}
        unknown = sorted(given - self.query_names)
        if unknown:
            raise ValidationFailed(
                "The query has parameters that this request does not take.",
                [(f"query.{name}", "is not known") for name in unknown],
            )


def _check_utf8(place: str, quoted: bytes) -> None:
    try:
        unquote_to_bytes(quoted).decode()
    except UnicodeDecodeError:
        raise ValidationFailed(f"The {place} is not UTF-8.", [(place, "must be UTF-8")]) from None


async def read_request(request: Request, *, takes_body: bool) -> CheckedRequest:
    """Receive the body and parse it.

    Raises what `Receiver.receive` does, UnsupportedMediaType, ValidationFailed.
    """
    receiver: Receiver = request.app.state.receiver
    body = await receiver.receive(request)
    checked = CheckedRequest(request.scope, request.receive)
    if body:
        if not _is_json(request.headers.get("content-type", "")):
            raise UnsupportedMediaType(
                "Send the body as JSON, with the header Content-Type: application/json."
            )
        checked.checked_body = body
        checked.checked_json = parse_json(body)
        if not takes_body and checked.checked_json not in (None, {}):
            raise ValidationFailed(
                "This request takes no body.", [("body", "must be empty or absent")]
            )
    return checked


def parse_json(raw: bytes) -> Any:
    """JSON as the protocol takes it: no NUL, no lone surrogate, finite doubles, 64-bit integers.

    Raises ValidationFailed.
    """
    try:
        value = from_json(raw, allow_inf_nan=False)
    except (ValueError, RecursionError) as error:
        raise _malformed(str(error)) from None
    if raw.count(b"[") + raw.count(b"{") > DEEPEST:
        _check_depth(value)
    if _SUSPICIOUS.search(raw):
        _check_scalars(value)
    return value


def _check_depth(value: Any) -> None:
    """Look at the containers, level by level, without recursion."""
    level: list[Any] = [value] if isinstance(value, list | dict) else []
    for _ in range(DEEPEST):
        level = [inner for one in level for inner in _inside(one) if isinstance(inner, list | dict)]
        if not level:
            return
    raise _malformed(f"it is nested deeper than {DEEPEST} levels")


def _inside(container: Any) -> Iterable[Any]:
    return container.values() if isinstance(container, dict) else container  # pyright: ignore[reportUnknownVariableType] - JSON


def _check_scalars(value: Any) -> None:
    """Look at every key and value."""
    left: list[Any] = [value]
    while left:
        one = left.pop()
        if isinstance(one, list):
            left.extend(one)  # pyright: ignore[reportUnknownArgumentType] - JSON
        elif isinstance(one, dict):
            left.extend(one)  # pyright: ignore[reportUnknownArgumentType] - JSON
            left.extend(one.values())  # pyright: ignore[reportUnknownArgumentType] - JSON
        else:
            _check_scalar(one)


def _check_scalar(value: Any) -> None:
    if isinstance(value, str):
        if "\0" in value:
            raise _malformed("a string holds NUL")
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise _malformed("a number is beyond a finite double")
    elif isinstance(value, int) and not -LARGEST_INTEGER - 1 <= value <= LARGEST_INTEGER:
        raise _malformed("an integer does not fit in 64 bits")


def _malformed(what: str) -> ValidationFailed:
    return ValidationFailed(
        f"The body is not JSON that the protocol takes: {what}.", [("body", what)]
    )


async def _receive(request: Request, max_body_bytes: int) -> bytes:
    """The whole body. What is too large is thrown away, so that the client sees the answer."""
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        chunk = message.get("body", b"")
        size += len(chunk)
        if size <= max_body_bytes:
            chunks.append(chunk)
        elif size > DRAINED_BYTES:
            break
        if not message.get("more_body", False):
            break
    if size > max_body_bytes:
        raise PayloadTooLarge(
            f"The body may have {max_body_bytes} bytes, not more (ORC_MAX_BODY_BYTES)."
        )
    return b"".join(chunks)


def _is_json(content_type: str) -> bool:
    if content_type == "application/json":
        return True
    kind, _, parameters = content_type.partition(";")
    charset = parameters.strip().lower().replace('"', "").replace(" ", "")
    return kind.strip().lower() == "application/json" and charset in ("", "charset=utf-8")
