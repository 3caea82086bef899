"""A server on a real port, in this process and on the test's clock, and sockets that speak raw."""

import asyncio
import json
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn

from tests.conftest import World

PATIENCE_SECONDS = 20
"""How long a test waits for bytes that must come; never how long anything takes."""


@dataclass(frozen=True)
class Answer:
    """One response as it came over the wire."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class Connection:
    """One TCP connection to the server."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def send(self, *parts: bytes) -> None:
        """Send bytes as they are; wait until the kernel has taken them."""
        for part in parts:
            self._writer.write(part)
        await self._writer.drain()

    async def ask(self, method: str, path: str, *headers: str, body: bytes = b"") -> Answer:
        """A well-formed request, and its answer."""
        await self.send(head(method, path, *headers, length=len(body)), body)
        return await self.answer(to=method)

    async def answer(self, *, to: str = "GET") -> Answer:
        """Read one response. That to a HEAD has no body whatever its headers say."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            lines = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            status = int(lines[0].split(" ")[1])
            headers = dict(_header(line) for line in lines[1:] if line)
            length = 0 if to == "HEAD" or status < 200 else int(headers.get("content-length", "0"))
            return Answer(status, headers, await self._reader.readexactly(length))

    async def is_closed(self) -> bool:
        """Wait for the server to close; False if it says anything more."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            try:
                return await self._reader.read() == b""
            except ConnectionResetError:
                return True

    async def close(self) -> None:
        self._writer.close()
        try:
            await self._writer.wait_closed()
        except OSError:  # the server closed first
            return


@dataclass(frozen=True)
class Listening:
    """A world that listens. It closes what its test left open."""

    world: World
    port: int
    connections: list[Connection] = field(default_factory=list[Connection])

    async def connect(self) -> Connection:
        connection = Connection(*await asyncio.open_connection("127.0.0.1", self.port))
        self.connections.append(connection)
        return connection

    async def ask(self, method: str, path: str, *headers: str, body: bytes = b"") -> Answer:
        """One request on a connection of its own."""
        connection = await self.connect()
        try:
            return await connection.ask(method, path, *headers, body=body)
        finally:
            await connection.close()


def head(method: str, path: str, *headers: str, length: int | None = None) -> bytes:
    """The head of a request to this server, in JSON unless the headers say otherwise."""
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", *headers]
    if not any(line.lower().startswith("content-type:") for line in headers):
        lines.append("Content-Type: application/json")
    if length is not None:
        lines.append(f"Content-Length: {length}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def _header(line: str) -> tuple[str, str]:
    name, _, value = line.partition(":")
    return name.lower(), value.strip()


@asynccontextmanager
async def listening(world: World) -> AsyncGenerator[Listening]:
    """Serve a world with the server of `orc serve`, on a free port, without its loop of ticks."""
    config = uvicorn.Config(
        world.app,
        lifespan="off",
        ws="none",
        proxy_headers=False,
        access_log=False,
        server_header=False,
        log_config=None,
    )
    config.load()
    server = uvicorn.Server(config)
    server.lifespan = config.lifespan_class(config)
    # Only where the protocol is named does asyncio turn Nagle's algorithm off: 40 ms an answer.
    with socket.socket(proto=socket.IPPROTO_TCP) as listener:
        listener.bind(("127.0.0.1", 0))
        await server.startup([listener])
        here = Listening(world, listener.getsockname()[1])
        try:
            yield here
        finally:
            for opened in here.connections:
                await opened.close()
            for listener_of_loop in server.servers:
                listener_of_loop.close()
            for connection in list(server.server_state.connections):
                connection.transport.abort()
            await asyncio.gather(*server.server_state.tasks, return_exceptions=True)
