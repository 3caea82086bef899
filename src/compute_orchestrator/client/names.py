"""What the server takes as a name, checked before anything is sent."""

import os
import re
import secrets
import socket
import uuid

LONGEST_NAME_BYTES = 200

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_NOT_IN_A_WORKER_ID = re.compile(r"[^A-Za-z0-9._-]")


def check_name(value: str, what: str) -> str:
    """1 to 200 bytes, no control characters."""
    if not 1 <= len(value.encode()) <= LONGEST_NAME_BYTES:
        raise ValueError(f"{what} must have 1 to {LONGEST_NAME_BYTES} bytes: {value[:60]!r}")
    if _CONTROL.search(value):
        raise ValueError(f"{what} must not have control characters: {value!r}")
    return value


def check_segment(value: str, what: str) -> str:
    """A name that can stand in a path: also no slash, and not a dot or two."""
    check_name(value, what)
    if "/" in value or value in (".", ".."):
        raise ValueError(f"{what} must not have a slash, nor be . or ..: {value!r}")
    return value


def header_value(value: str, what: str) -> bytes:
    """As bytes of UTF-8. A space at either end would be lost on the way."""
    if value != value.strip():
        raise ValueError(f"{what} must not begin or end with white space: {value!r}")
    return check_name(value, what).encode()


def new_id() -> str:
    """A key or a request id that nobody else makes."""
    return uuid.uuid4().hex


def new_worker_id() -> str:
    """Host and process, for people; random, because a pid comes back."""
    host = _NOT_IN_A_WORKER_ID.sub("-", socket.gethostname())[:100] or "host"
    return f"{host}-{os.getpid()}-{secrets.token_hex(4)}"
