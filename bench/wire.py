"""HTTP/1.1 as the load generator speaks it: requests as ready bytes, answers read by a regex."""

import json
import re
from collections.abc import Mapping

HOST = "127.0.0.1"

_CONTENT_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_END_OF_HEAD = b"\r\n\r\n"


def encode(body: Mapping[str, object]) -> bytes:
    return json.dumps(body, separators=(",", ":")).encode()


def request(method: str, path: str, body: bytes) -> bytes:
    return (
        f"{method} {path} HTTP/1.1\r\nHost: {HOST}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    ).encode() + body


def answer(status: int, reason: str, body: bytes) -> bytes:
    return (
        f"HTTP/1.1 {status} {reason}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    ).encode() + body


def read_answer(data: bytes) -> tuple[int, bytes] | None:
    """The status and body of one whole answer, or None while part of it is still on its way.

    A chunked answer, which no server here sends, would stay incomplete and end as a failure.
    """
    end = data.find(_END_OF_HEAD)
    if end < 0:
        return None
    status = int(data[9:12])
    start = end + len(_END_OF_HEAD)
    if status == 204:
        return status, b""
    length = _CONTENT_LENGTH.search(data, 0, end)
    if length is None or len(data) < start + int(length[1]):
        return None
    return status, data[start:]
