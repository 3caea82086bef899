"""One HTTP call: what is sent, what an answer means, when it is sent again."""

import asyncio
import ipaddress
import json
import re
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import TypeVar

import httpx
import pydantic_core
from pydantic import ValidationError

from compute_orchestrator.client.errors import (
    CallTimedOut,
    ClientError,
    ConnectFailed,
    ConnectionBroken,
    UnusableAnswer,
    problem_from,
)
from compute_orchestrator.client.lines import KEEP_IDLE_SECONDS, Lines
from compute_orchestrator.client.models import Answer
from compute_orchestrator.client.retries import Patience, parse_retry_after

A = TypeVar("A", bound=Answer)

Parameter = str | float | bool | Sequence[str] | None

NO_CONTENT = 204
FIRST_REDIRECT = 300
FIRST_REFUSAL = 400

# Long polls beside the other calls, whose places they never take.
MOST_LONG_POLLS = 200


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one call is given of time; None is what the client is given."""

    timeout_seconds: float | None = None
    waits_seconds: float | None = None  # a long poll's, which come on top
    patience: Patience | None = None


USUAL = Limits()


class _Lent(httpx.AsyncBaseTransport):
    """A transport that others use too: the end of one line does not close it."""

    def __init__(self, transport: httpx.AsyncBaseTransport) -> None:
        self._transport = transport

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        return await self._transport.handle_async_request(request)


class Caller:
    """Calls to one server, over so many connections at most, and long polls beside them."""

    def __init__(
        self,
        url: str,
        *,
        timeout_seconds: float,
        patience: Patience,
        max_connections: int,
        transport: httpx.AsyncBaseTransport | None,
    ) -> None:
        base = check_url(url)
        self.url = str(base)
        self._patience = patience
        self._timeout_seconds = timeout_seconds
        self._places = asyncio.Semaphore(max_connections)
        self._long_polls = 0
        self._transport = transport
        self._lent = None if transport is None else _Lent(transport)
        # A proxy can't reach this machine's loopback.
        self._trust_env = not is_loopback(base.host)
        # Read once for all lines: it takes as long as some calls. A lent transport has its own.
        self._certificates = transport is not None or httpx.create_ssl_context(
            trust_env=self._trust_env
        )
        self._lines = Lines(self._line, most_idle=max_connections)
        self._requests = httpx.AsyncClient(
            base_url=base,
            headers={"Accept": "application/json", "User-Agent": f"compute-orchestrator/{_sdk()}"},
            transport=httpx.AsyncBaseTransport(),  # it builds requests, and sends none
        )

    def _line(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            limits=httpx.Limits(max_connections=1, keepalive_expiry=KEEP_IDLE_SECONDS),
            transport=self._lent,
            verify=self._certificates,
            trust_env=self._trust_env,
        )

    async def aclose(self) -> None:
        await self._lines.aclose()
        if self._transport is not None:
            await self._transport.aclose()

    async def ask(
        self,
        method: str,
        path: str,
        kind: type[A],
        *,
        query: Mapping[str, Parameter] | None = None,
        body: Mapping[str, object] | None = None,
        headers: Mapping[str, bytes] | None = None,
        limits: Limits = USUAL,
    ) -> A:
        """A call that is always answered with a body."""
        answer = await self.ask_maybe(
            method, path, kind, query=query, body=body, headers=headers, limits=limits
        )
        if answer is None:
            raise UnusableAnswer(f"{method} {path}: an answer without a body")
        return answer

    async def ask_maybe(
        self,
        method: str,
        path: str,
        kind: type[A],
        *,
        query: Mapping[str, Parameter] | None = None,
        body: Mapping[str, object] | None = None,
        headers: Mapping[str, bytes] | None = None,
        limits: Limits = USUAL,
    ) -> A | None:
        """A call that may be answered with 204: None."""
        timeout_seconds = limits.timeout_seconds or self._timeout_seconds
        waits_seconds = limits.waits_seconds or 0
        request = self._requests.build_request(
            method,
            path,
            params=_given(query),
            content=None if body is None else to_json(body),
            headers=_headers(body, headers),
            timeout=httpx.Timeout(timeout_seconds, read=timeout_seconds + waits_seconds),
        )
        send = self._send if waits_seconds else self._send_in_turn
        content = await (limits.patience or self._patience).run(
            lambda: send(request), f"{method} {path}", waits_seconds=waits_seconds
        )
        return None if content is None else _parse(content, kind, request)

    @contextmanager
    def long_poll(self, seconds: float | None) -> Generator[float | None]:
        """How long the call may wait: not at all while there are too many long polls.

        Whoever makes them must not ask at once again after an early answer; the server, too, gives
        one when it stops.
        """
        if not seconds or self._long_polls >= MOST_LONG_POLLS:
            yield None
            return
        self._long_polls += 1
        try:
            yield seconds
        finally:
            self._long_polls -= 1

    async def _send_in_turn(self, request: httpx.Request) -> bytes | None:
        async with self._places:
            return await self._send(request)

    async def _send(self, request: httpx.Request) -> bytes | None:
        try:
            response = await self._lines.send(request)
        except httpx.HTTPError as error:
            raise _no_answer(error, request) from error
        if response.status_code == NO_CONTENT:
            return None
        if response.status_code >= FIRST_REFUSAL:
            raise problem_from(
                response.status_code,
                response.content,
                retry_after_seconds=parse_retry_after(response.headers.get("Retry-After")),
            )
        if response.status_code >= FIRST_REDIRECT:
            raise UnusableAnswer(f"{_shown(request)}: redirected ({response.status_code})")
        return response.content


def check_url(url: str) -> httpx.URL:
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise ValueError(f"{_without_user(url)!r} is no URL: {error}") from error
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise ValueError(f"{_without_user(url)!r} is not of the form http://host:port")
    return parsed


def _without_user(url: str) -> str:
    """Where it is no URL, it may hold a password all the same."""
    return re.sub(r"[^/@]*@", "", url)


def without_secrets(url: httpx.URL | str) -> str:
    """As it may be shown: with neither user and password nor a query."""
    return str(httpx.URL(url).copy_with(query=None, userinfo=b""))


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def to_json(value: object) -> bytes:
    """As JSON, strictly: what the server would refuse as JSON raises ValueError here."""
    text = pydantic_core.to_json(value)
    if b"NaN" not in text and b"Infinity" not in text:
        return text
    # One of them may be in a string; if not, this raises. It takes several times as long.
    plain = pydantic_core.to_jsonable_python(value)
    return json.dumps(plain, ensure_ascii=False, allow_nan=False).encode()


def _given(query: Mapping[str, Parameter] | None) -> dict[str, str | Sequence[str]]:
    """Without what was not given; true and numbers as the protocol writes them."""
    return {
        name: value if isinstance(value, list | tuple) else _word(value)
        for name, value in (query or {}).items()
        if value is not None
    }


def _word(value: Parameter) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.6f}" if isinstance(value, float) else str(value)


def _headers(
    body: Mapping[str, object] | None, headers: Mapping[str, bytes] | None
) -> dict[bytes, bytes]:
    named = {name.encode(): value for name, value in (headers or {}).items()}
    return named if body is None else {b"Content-Type": b"application/json", **named}


def _parse(content: bytes, kind: type[A], request: httpx.Request) -> A:
    try:
        return kind.model_validate_json(content)
    except ValidationError as error:
        raise UnusableAnswer(
            f"{_shown(request)}: not an answer of this protocol: {error}"
        ) from error


def _no_answer(error: httpx.HTTPError, request: httpx.Request) -> ClientError:
    said = f"{_shown(request)}: {error or type(error).__name__}"
    match error:
        case httpx.ConnectError() | httpx.ConnectTimeout():
            return ConnectFailed(said)
        case httpx.TimeoutException():
            return CallTimedOut(said)
        case httpx.TransportError():
            return ConnectionBroken(said)
        case _:
            return UnusableAnswer(said)


def _shown(request: httpx.Request) -> str:
    return f"{request.method} {without_secrets(request.url)}"


@cache
def _sdk() -> str:
    try:
        return version("compute-orchestrator")
    except PackageNotFoundError:  # run from a source tree that is not installed
        return "unknown"
