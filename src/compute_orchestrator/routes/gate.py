"""The gate: who may call (PROTOCOL section 8). Pure ASGI, before everything else.

Without keys the server is for one machine: peers that are not loopback are refused unless it was
opened on purpose. In every mode a browser's page from elsewhere is kept out, by `Host` (DNS
rebinding) and by `Origin`.
"""

from collections.abc import Collection
from functools import lru_cache
from ipaddress import ip_address
from typing import Final
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Receive, Scope, Send

from compute_orchestrator.domain.errors import HostRefused, NotLocal, OriginRefused, Refused
from compute_orchestrator.routes.problems import problem_response

FORWARDED: Final = frozenset({b"forwarded", b"x-real-ip"})
DEFAULT_PORTS: Final = {"http": 80, "https": 443}


class Gate:
    """`allowed_hosts` are names besides loopback; `insecure_open` lets any peer in."""

    def __init__(
        self, app: ASGIApp, *, allowed_hosts: Collection[str], insecure_open: bool
    ) -> None:
        self._app = app
        self._allowed_hosts = frozenset(name.lower() for name in allowed_hosts)
        self._insecure_open = insecure_open

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = self._refusal(scope) if scope["type"] == "http" else None
        if refusal is not None:
            await problem_response(refusal)(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _refusal(self, scope: Scope) -> Refused | None:
        host: bytes | None = None
        origin: bytes | None = None
        forwarded = cross_site = False
        hosts = 0
        for name, value in scope["headers"]:
            if name == b"host":
                host = value
                hosts += 1
            elif name == b"origin":
                origin = value
            elif name == b"sec-fetch-site":
                cross_site = value == b"cross-site"
            elif name in FORWARDED or name.startswith(b"x-forwarded-"):
                forwarded = True
        if not self._insecure_open and (forwarded or not _is_local(scope)):
            return NotLocal(
                "This server answers only its own machine, and not through a proxy. "
                "ORC_INSECURE_OPEN=1 opens it; there are no keys yet."
            )
        name = _host_name(host) if hosts == 1 else None
        if name is None or not (_is_loopback_name(name) or name in self._allowed_hosts):
            return HostRefused("The Host is neither loopback nor in ORC_ALLOWED_HOSTS.")
        if cross_site or (origin is not None and not _same_origin(origin, host or b"")):
            return OriginRefused("Web pages from elsewhere may not call this server.")
        return None


def _is_local(scope: Scope) -> bool:
    client = scope.get("client")
    return client is None or _is_loopback_name(client[0])  # None: a Unix socket


@lru_cache(maxsize=1024)
def _is_loopback_name(name: str) -> bool:
    if name == "localhost":
        return True
    try:
        address = ip_address(name)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


@lru_cache(maxsize=1024)
def _host_name(host: bytes | None) -> str | None:
    """The name in a Host header, without the port; None for one that is none."""
    try:
        parts = urlsplit(f"//{(host or b'').decode('ascii')}")
    except ValueError:
        return None
    return parts.hostname if parts.path == "" and parts.username is None else None


@lru_cache(maxsize=1024)
def _same_origin(origin: bytes, host: bytes) -> bool:
    """Whether a page of this origin came from this server; all names of loopback are one."""
    try:
        page = urlsplit(origin.decode("ascii"))
        here = urlsplit(f"//{host.decode('ascii')}")
        default = DEFAULT_PORTS.get(page.scheme)
        if default is None or page.hostname is None or here.hostname is None:
            return False
        if (page.port or default) != (here.port or default):
            return False
    except ValueError:
        return False
    both_loopback = _is_loopback_name(page.hostname) and _is_loopback_name(here.hostname)
    return page.hostname == here.hostname or both_loopback
