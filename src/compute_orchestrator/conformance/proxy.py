"""A proxy before one worker: it records what goes through, and a check may treat answers.

Each worker under test has its own, on its own port, so that nothing has to be told apart. HTTP/1.1
is parsed by h11, which comes with httpx.
"""

import asyncio
import json
from asyncio import StreamReader, StreamWriter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

import h11
import httpx

from compute_orchestrator.conformance.traffic import Exchange, Traffic

LOCAL: Final = "127.0.0.1"
READ_BYTES: Final = 2**16
LONGEST_CALL_SECONDS: Final = 90.0
"""More than the longest long poll."""

# They are about one connection, and each side of the proxy has its own; the answer comes decoded.
OWN_HEADERS: Final = {
    b"accept-encoding",
    b"connection",
    b"content-encoding",
    b"content-length",
    b"expect",
    b"host",
    b"keep-alive",
    b"transfer-encoding",
}

Headers = Sequence[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: Headers
    body: bytes


Forward = Callable[[], Awaitable[Answer]]
Treatment = Callable[[Exchange, Forward], Awaitable[Answer | None]]
"""What becomes of a request: its answer, or None to break the connection without one."""


async def pass_on(_: Exchange, forward: Forward) -> Answer | None:
    return await forward()


def busy(retry_after_seconds: int) -> Answer:
    """The server's own way to say: not now."""
    problem = {
        "type": "urn:compute-orchestrator:problem:overloaded",
        "title": "Too many calls wait",
        "status": 503,
        "detail": "Nothing was written. Made by the conformance check.",
        "code": "overloaded",
    }
    headers = [
        (b"content-type", b"application/problem+json"),
        (b"retry-after", str(retry_after_seconds).encode()),
    ]
    return Answer(503, headers, json.dumps(problem).encode())


class Proxy:
    """Listens while its context is open."""

    def __init__(self, upstream: str, traffic: Traffic) -> None:
        self.treatment: Treatment = pass_on
        self.url = ""
        self.traffic = traffic
        self._serving: set[asyncio.Task[None]] = set()
        limits = httpx.Limits(max_connections=None, keepalive_expiry=1.0)
        self._http = httpx.AsyncClient(
            base_url=upstream, limits=limits, timeout=LONGEST_CALL_SECONDS, trust_env=False
        )

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, LOCAL, 0)
        self.url = f"http://{LOCAL}:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.close()
        for task in self._serving:
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)
        await self._http.aclose()

    def _accept(self, reader: StreamReader, writer: StreamWriter) -> None:
        task = asyncio.create_task(self._serve(Wire(reader, writer)))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    async def _serve(self, wire: "Wire") -> None:
        try:
            while (request := await wire.receive()) is not None:
                answer = await self._treat(*request, wire)
                if answer is None:
                    return
                await wire.send(answer)
        except (ConnectionError, h11.ProtocolError):
            pass
        finally:
            wire.abort()

    async def _treat(self, head: h11.Request, body: bytes, wire: "Wire") -> Answer | None:
        target = head.target.decode("ascii")
        exchange = self.traffic.begin(head.method.decode("ascii"), target.partition("?")[0], body)
        came: list[Answer] = []

        async def forward() -> Answer:
            """To the server once, however often it is asked for."""
            if not came:
                came.append(await self._forward(head, body))
                self.traffic.read_answer(exchange, came[0].status, came[0].body)
            return came[0]

        treating = asyncio.create_task(self._treated(exchange, forward))
        try:
            await wire.unless_gone(treating)
            answer = treating.result() if treating.done() else None
        except httpx.HTTPError:  # the server is gone; its worker is not to blame
            return None
        finally:
            treating.cancel()
            await asyncio.wait({treating})
        if answer is not None:
            if exchange.status is None:
                self.traffic.read_answer(exchange, answer.status, answer.body)
            self.traffic.end(exchange)
        return answer

    async def _treated(self, exchange: Exchange, forward: Forward) -> Answer | None:
        """A long poll may have waited at the server while a check changed the treatment."""
        while True:
            treatment = self.treatment
            answer = await treatment(exchange, forward)
            if treatment is self.treatment:
                return answer

    async def _forward(self, head: h11.Request, body: bytes) -> Answer:
        came = await self._http.request(
            head.method.decode("ascii"),
            head.target.decode("ascii"),
            headers=[(name, value) for name, value in head.headers if name not in OWN_HEADERS],
            content=body or None,
        )
        headers = [(name.lower(), value) for name, value in came.headers.raw]
        kept = [(name, value) for name, value in headers if name not in OWN_HEADERS]
        return Answer(came.status_code, kept, came.content)


class Wire:
    """One connection of the worker."""

    def __init__(self, reader: StreamReader, writer: StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._http = h11.Connection(h11.SERVER)

    async def receive(self) -> tuple[h11.Request, bytes] | None:
        """The next request and its body; None when the worker has closed."""
        if self._http.our_state is h11.DONE and self._http.their_state is h11.DONE:
            self._http.start_next_cycle()
        if self._http.our_state is not h11.IDLE:
            return None
        head: h11.Request | None = None
        body = bytearray()
        while True:
            event = self._http.next_event()
            if event is h11.NEED_DATA:
                await self._read_more()
            elif isinstance(event, h11.Request):
                head = event
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage) and head is not None:
                return head, bytes(body)
            else:
                return None

    async def send(self, answer: Answer) -> None:
        empty = answer.status == 204
        length = [] if empty else [(b"content-length", str(len(answer.body)).encode())]
        head = h11.Response(status_code=answer.status, headers=[*answer.headers, *length])
        events = [head, *([] if empty else [h11.Data(data=answer.body)]), h11.EndOfMessage()]
        self._writer.write(b"".join(self._http.send(event) or b"" for event in events))
        await self._writer.drain()

    async def unless_gone(self, work: "asyncio.Future[Answer | None]") -> None:
        """Until it is done, or the worker went away: then the server is to hear of that too."""
        gone = asyncio.create_task(self._gone())
        try:
            await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            gone.cancel()
            await asyncio.wait({gone})

    def abort(self) -> None:
        """What was written still goes out; what was not never will."""
        self._writer.close()

    async def _read_more(self) -> None:
        if self._http.they_are_waiting_for_100_continue:
            go_on = h11.InformationalResponse(status_code=100, headers=[])
            self._writer.write(self._http.send(go_on) or b"")
        self._http.receive_data(await self._reader.read(READ_BYTES))

    async def _gone(self) -> None:
        """A next request that comes early is kept for its turn."""
        with suppress(ConnectionError):
            while data := await self._reader.read(READ_BYTES):
                self._http.receive_data(data)
