"""What stands between the SDK and the server in these tests: transports that remember, and a proxy
on a real socket that loses answers.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import Any, Self

import httpx

from compute_orchestrator.client import Worker
from tests.conftest import World

LOCAL = "127.0.0.1"
OK = 200


@dataclass(frozen=True)
class Exchange:
    """A call that was answered, or whose answer was lost (`status` None)."""

    method: str
    path: str
    body: Any
    headers: dict[str, str]
    status: int | None
    answer: Any = None

    def is_like(self, call: str) -> bool:
        """`call` is a method and the end of a path: `POST /claim`."""
        method, _, end = call.partition(" ")
        return self.method == method and self.path.endswith(end)

    def parts(self) -> "list[Exchange]":
        """A sync as the single calls that it stands for; none, of any other call."""
        if not self.is_like("POST /sync"):
            return []
        said: dict[str, Any] = self.answer or {}
        parts = self._items("reports", "PATCH", "status", said)
        parts += self._items("heartbeats", "POST", "heartbeat", said)
        if "claim" in self.body:
            status = 204 if self.status == OK and not said["jobs"] else self.status
            parts.append(Exchange("POST", "/jobs/claim", self.body["claim"], {}, status, said))
        return parts

    def _items(self, name: str, method: str, end: str, said: dict[str, Any]) -> "list[Exchange]":
        items = self.body.get(name, [])
        return [
            Exchange(method, f"/jobs/{item['id']}/{end}", item, {}, self._status_of(answer), answer)
            for item, answer in zip_longest(items, said.get(name, []))
        ]

    def _status_of(self, answer: dict[str, Any] | None) -> int | None:
        """Of an item: its own where it has one, else that of the whole call."""
        problem = answer and answer.get("problem")
        return problem["status"] if problem else self.status


class Record:
    """What was exchanged so far; a test waits here for what is to come."""

    def __init__(self) -> None:
        self._exchanges: list[Exchange] = []
        self._grew = asyncio.Condition()

    def of(self, call: str) -> list[Exchange]:
        """Of a sync each part counts, too."""
        return [exchange for exchange in self._exchanges if exchange.is_like(call)]

    async def add(self, exchange: Exchange) -> None:
        async with self._grew:
            self._exchanges += [exchange, *exchange.parts()]
            self._grew.notify_all()

    async def until(self, call: str, times: int = 1, status: int | None = None) -> list[Exchange]:
        """Wait for so many such exchanges, answered with `status` if that is given."""

        def found() -> list[Exchange]:
            return [e for e in self.of(call) if status is None or e.status == status]

        async with asyncio.timeout(20), self._grew:
            await self._grew.wait_for(lambda: len(found()) >= times)
            return found()


class Wire(httpx.AsyncBaseTransport):
    """To a server in this process, with a record."""

    def __init__(self, world: World) -> None:
        self.record = Record()
        self.instead: dict[str, list[httpx.Response]] = {}
        """What is answered, in turn, to such calls, which then never come to the server."""
        self._inner = httpx.ASGITransport(world.app, client=(LOCAL, 50_001))

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        sent = Exchange(
            request.method,
            request.url.path,
            json.loads(request.content or b"null"),
            dict(request.headers),
            None,
        )
        asked = [sent, *sent.parts()]
        instead = [
            answers
            for call, answers in self.instead.items()
            if answers and any(part.is_like(call) for part in asked)
        ]
        if instead:
            response = instead[0].pop(0)
        else:
            response = await self._inner.handle_async_request(request)
        answer = _json(await response.aread())
        await self.record.add(replace(sent, status=response.status_code, answer=answer))
        return response


class Proxy:
    """Forwards HTTP/1.1 to a server, and loses what it is told to lose."""

    def __init__(self, upstream_port: int) -> None:
        self.record = Record()
        self.accepted = 0
        """How many connections there were."""
        self._upstream_port = upstream_port
        self._losing: dict[str, int] = {}
        self._stranger: bytes | None = None
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self._upstreams: set[asyncio.StreamWriter] = set()
        self._port = 0

    @property
    def url(self) -> str:
        return f"http://{LOCAL}:{self._port}"

    def lose(self, call: str, times: int = 1) -> None:
        """Cut the connection after the server did such a call, before its answer is passed on."""
        self._losing[call] = times

    def _is_lost(self, exchange: Exchange) -> bool:
        asked = [exchange, *exchange.parts()]
        for call, times in self._losing.items():
            if times > 0 and any(part.is_like(call) for part in asked):
                self._losing[call] = times - 1
                return True
        return False

    async def come(self) -> Self:
        """Listen; again on the same port after `go_away()`."""
        self._server = await asyncio.start_server(self._serve, LOCAL, self._port)
        self._port = self._server.sockets[0].getsockname()[1]
        return self

    async def go_away(self) -> None:
        """Refuse connections and break those that are open."""
        assert self._server is not None
        self._server.close()
        for writer in [*self._open, *self._upstreams]:
            writer.transport.abort()
        await self._server.wait_closed()

    async def hang_up(self) -> None:
        """End the connections that are open, as a server does with those that are idle."""
        for writer in list(self._open):
            writer.close()
            await writer.wait_closed()

    @asynccontextmanager
    async def replaced_by(self, answer: bytes) -> AsyncGenerator[None]:
        """The server goes away, and until it is back another program on its port says this."""
        await self.go_away()
        self._stranger = answer
        await self.come()
        try:
            yield
        finally:
            await self.go_away()
            self._stranger = None
            await self.come()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        self._open.add(writer)
        upstream_reader, upstream = await asyncio.open_connection(LOCAL, self._upstream_port)
        self._upstreams.add(upstream)
        try:
            while await self._exchange(reader, writer, upstream_reader, upstream):
                pass
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._open.discard(writer)
            self._upstreams.discard(upstream)
            writer.transport.abort()
            upstream.transport.abort()

    async def _exchange(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        upstream_reader: asyncio.StreamReader,
        upstream: asyncio.StreamWriter,
    ) -> bool:
        """One request and its answer. False where the connection is to be cut."""
        head, headers, body = await _message(reader)
        method, path, _ = head.split(b"\r\n")[0].decode().split(" ")
        answer = self._stranger
        answer_body = b""
        if answer is None:
            upstream.write(head + body)
            answer_head, _, answer_body = await _message(upstream_reader)
            answer = answer_head + answer_body
        status = int(answer.split(b" ")[1])
        exchange = Exchange(
            method, path.partition("?")[0], json.loads(body or b"null"), headers, None
        )
        lost = self._is_lost(exchange)
        if not lost:
            exchange = replace(exchange, status=status, answer=_json(answer_body))
            writer.write(answer)
            await writer.drain()
        await self.record.add(exchange)
        return not lost


def _json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:  # a stranger's page, or nothing
        return None


async def _message(reader: asyncio.StreamReader) -> tuple[bytes, dict[str, str], bytes]:
    head = await reader.readuntil(b"\r\n\r\n")
    lines = [line.decode().partition(":") for line in head.split(b"\r\n")[1:] if line]
    headers = {name.lower(): value.strip() for name, _, value in lines}
    return head, headers, await reader.readexactly(int(headers.get("content-length", 0)))


@asynccontextmanager
async def proxy_to(port: int) -> AsyncGenerator[Proxy]:
    proxy = await Proxy(port).come()
    try:
        yield proxy
    finally:
        await proxy.go_away()


def answering(handler: Callable[[httpx.Request], httpx.Response]) -> httpx.MockTransport:
    """A server that says what a test wants it to say."""
    return httpx.MockTransport(handler)


@asynccontextmanager
async def working(app: Worker) -> AsyncGenerator[None]:
    """The worker works inside, and has stopped in good order after it."""
    serving = asyncio.create_task(app.serve())
    try:
        yield
    finally:
        app.stop()
        async with asyncio.timeout(20):
            await serving
