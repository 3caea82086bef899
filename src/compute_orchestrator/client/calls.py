"""One HTTP call: what is sent, what an answer means, when it is sent again."""

import asyncio
import ipaddress
import json
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import TypeVar

import httpx
from pydantic import ValidationError
from pydantic_core import to_jsonable_python

from compute_orchestrator.client.errors import (
    CallTimedOut,
    ClientError,
    ConnectFailed,
    ConnectionBroken,
    UnusableAnswer,
    problem_from,
)
from compute_orchestrator.client.models import Answer
from compute_orchestrator.client.retries import Patience, parse_retry_after

A = TypeVar("A", bound=Answer)

Parameter = str | int | bool | Sequence[str] | None

NO_CONTENT = 204
FIRST_REDIRECT = 300
FIRST_REFUSAL = 400

# Below uvicorn's 5 s: a connection that the server is about to close is not used once more.
KEEP_IDLE_SECONDS = 4.0


class Caller:
    """A pool of connections to one server."""

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
        # httpx walks its queue of waiting requests at each change; so none wait there, but here.
        self._places = asyncio.Semaphore(max_connections)
        self._http = httpx.AsyncClient(
            base_url=base,
            headers={"Accept": "application/json", "User-Agent": f"compute-orchestrator/{_sdk()}"},
            timeout=timeout_seconds,
            limits=httpx.Limits(
                max_connections=max_connections,
                max_keepalive_connections=max_connections,
                keepalive_expiry=KEEP_IDLE_SECONDS,
            ),
            transport=transport,
            # A proxy can't reach this machine's loopback.
            trust_env=not is_loopback(base.host),
        )

    async def aclose(self) -> None:
        await self._http.aclose()

    async def ask(
        self,
        method: str,
        path: str,
        kind: type[A],
        *,
        query: Mapping[str, Parameter] | None = None,
        body: Mapping[str, object] | None = None,
        headers: Mapping[str, bytes] | None = None,
    ) -> A:
        """A call that is always answered with a body."""
        answer = await self.ask_maybe(method, path, kind, query=query, body=body, headers=headers)
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
    ) -> A | None:
        """A call that may be answered with 204: None."""
        request = self._http.build_request(
            method,
            path,
            params=_given(query),
            content=None if body is None else to_json(body),
            headers=_headers(body, headers),
        )
        content = await self._patience.run(lambda: self._send(request), f"{method} {path}")
        return None if content is None else _parse(content, kind, request)

    async def _send(self, request: httpx.Request) -> bytes | None:
        try:
            async with self._places:
                response = await self._http.send(request)
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
        raise ValueError(f"{url!r} is no URL: {error}") from error
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise ValueError(f"{url!r} is not of the form http://host:port")
    return parsed


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
    plain = to_jsonable_python(value)
    text = json.dumps(plain, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.encode()


def _given(query: Mapping[str, Parameter] | None) -> dict[str, str | Sequence[str]]:
    """Without what was not given; true and numbers as the protocol writes them."""
    return {
        name: value if isinstance(value, list | tuple) else _word(value)
        for name, value in (query or {}).items()
        if value is not None
    }


def _word(value: Parameter) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


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


def _sdk() -> str:
    try:
        return version("compute-orchestrator")
    except PackageNotFoundError:  # run from a source tree that is not installed
        return "unknown"
