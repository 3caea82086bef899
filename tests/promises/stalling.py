"""A network in front of the database, or of a server: a TCP proxy that passes everything on until
it is told to stand still, to cut what is open, or to let nobody in.
"""

import asyncio
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.promises.servers import LOCAL


class Network:
    """The way from whoever connects to `port` to a database's socket, or to a server's port."""

    def __init__(self, socket: Path | int) -> None:
        self.port = 0
        self._socket = socket
        self._passing = asyncio.Event()
        self._passing.set()
        self._ways: set[Way] = set()
        self._forgotten: set[Way] = set()
        self._listener: asyncio.Server | None = None

    def url_of(self, database_url: str) -> str:
        """The same database, over this way."""
        name = database_url.partition("?")[0].rpartition("/")[2]
        return f"postgresql://postgres@{LOCAL}:{self.port}/{name}"

    def stall(self) -> None:
        """Nothing gets through, and nothing is closed: each side waits for the other."""
        self._passing.clear()

    def flow(self) -> None:
        """What waited arrives, and all goes on."""
        self._passing.set()

    def forget(self) -> None:
        """Of what is open now nothing gets through any more, and neither side hears of it, as
        behind a firewall that restarted; what is opened from here on works.
        """
        for way in self._ways:
            way.passing = asyncio.Event()
        self._forgotten |= self._ways
        self._ways = set()

    def remember(self) -> None:
        """What was forgotten is reset."""
        for way in self._forgotten:
            way.cut()

    def cut(self) -> None:
        """Reset what is open."""
        for way in self._ways:
            way.cut()

    async def refuse(self) -> None:
        """Nobody listens here."""
        assert self._listener is not None
        self._listener.close()
        self._listener = None

    async def admit(self) -> None:
        """Somebody listens, on the same port as before."""
        self._listener = await asyncio.start_server(self._serve, LOCAL, self.port)
        self.port = self._listener.sockets[0].getsockname()[1]

    async def close(self) -> None:
        if self._listener is not None:
            await self.refuse()
        self.remember()
        self.cut()
        for way in self._ways | self._forgotten:
            await way.ended.wait()

    async def _serve(self, reader: StreamReader, writer: StreamWriter) -> None:
        way = Way(reader, writer, self._passing, self._socket)
        self._ways.add(way)
        await way.ended.wait()
        self._ways.discard(way)
        self._forgotten.discard(way)


class Way:
    """One connection, from both sides, until either of them ends it or it is cut."""

    def __init__(
        self, reader: StreamReader, writer: StreamWriter, passing: asyncio.Event, socket: Path | int
    ) -> None:
        self.passing = passing
        self.ended = asyncio.Event()
        self._reader = reader
        self._writer = writer
        self._leading = asyncio.create_task(self._lead_to(socket))
        self._leading.add_done_callback(lambda _: self.ended.set())

    def cut(self) -> None:
        self._leading.cancel()

    async def _lead_to(self, socket: Path | int) -> None:
        writers = [self._writer]
        try:
            await self.passing.wait()
            reader, writer = await connect(socket)
            writers.append(writer)
            ways = self._pass_on(self._reader, writer), self._pass_on(reader, self._writer)
            async with asyncio.TaskGroup() as group:
                for way in ways:
                    group.create_task(way)
        except* (OSError, Ended):
            pass
        finally:
            for writer in writers:
                writer.transport.abort()

    async def _pass_on(self, reader: StreamReader, writer: StreamWriter) -> None:
        """Ends by an error, which ends the other direction too."""
        while True:
            data = await read(reader)
            await self.passing.wait()  # the end of a connection is not heard of either
            if not data:
                raise Ended
            writer.write(data)


async def connect(socket: Path | int) -> tuple[StreamReader, StreamWriter]:
    if isinstance(socket, int):
        return await asyncio.open_connection(LOCAL, socket)
    return await asyncio.open_unix_connection(str(socket))


class Ended(Exception):
    """One side of a connection has ended it."""


async def read(reader: StreamReader) -> bytes:
    """What comes next; nothing at the end, however that was."""
    try:
        return await reader.read(2**16)
    except ConnectionError:
        return b""


@asynccontextmanager
async def network_to(socket: Path | int) -> AsyncGenerator[Network]:
    network = Network(socket)
    await network.admit()
    try:
        yield network
    finally:
        await network.close()
