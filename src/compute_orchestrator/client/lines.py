"""Connections to one server, each the only one of an httpx client.

A pool of many would be httpcore's: it loses for good the connections of calls that are cancelled at
a bad moment (encode/httpcore#1093), and looks through all it has at each call. A line whose call
did not end well is thrown away here, whatever httpcore thinks of it.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import httpx

# Below uvicorn's 5 s: a connection that the server is about to close is not used once more.
KEEP_IDLE_SECONDS = 4.0


@dataclass(eq=False)
class Line:
    http: httpx.AsyncClient
    idle_since: float = 0.0


class Lines:
    """As many as there are calls at once; whoever calls sees to it that those are not too many."""

    def __init__(self, make: Callable[[], httpx.AsyncClient], *, most_idle: int) -> None:
        self._make = make
        self._most_idle = most_idle
        self._open: set[Line] = set()
        self._idle: deque[Line] = deque()  # the one that was used last goes first
        self._closing: set[asyncio.Task[None]] = set()
        self._closed = False

    async def send(self, request: httpx.Request) -> httpx.Response:
        if self._closed:
            raise RuntimeError("the client is closed")
        line = self._idle.pop() if self._idle else self._new()
        try:
            response = await line.http.send(request)
        except BaseException:
            self._discard(line)
            raise
        self._put_back(line)
        return response

    async def aclose(self) -> None:
        """Calls under way end with an error."""
        self._closed = True
        self._idle.clear()
        for line in list(self._open):
            self._discard(line)
        if self._closing:
            await asyncio.wait(self._closing)

    def _new(self) -> Line:
        line = Line(self._make())
        self._open.add(line)
        return line

    def _put_back(self, line: Line) -> None:
        if self._closed:
            return
        line.idle_since = now = asyncio.get_running_loop().time()
        self._idle.append(line)
        while (
            len(self._idle) > self._most_idle or self._idle[0].idle_since < now - KEEP_IDLE_SECONDS
        ):
            self._discard(self._idle.popleft())

    def _discard(self, line: Line) -> None:
        if line not in self._open:  # closed while its call was under way
            return
        self._open.remove(line)
        closing = asyncio.create_task(line.http.aclose())
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)
