"""A TCP proxy that loses answers: it cuts the connection when the server's answer has come, which
the server sends after its commit, and before the client saw a byte of it.
"""

import asyncio
import json
import re
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any

from tests.promises.servers import LOCAL


class LossyProxy:
    """Passes everything on, but for the answers that come while it is `losing`."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._losing = False
        self._serving: set[asyncio.Task[None]] = set()
        self.url = ""
        self.lost: list[bytes] = []

    @contextmanager
    def losing(self) -> Generator[None]:
        self._losing = True
        try:
            yield
        finally:
            self._losing = False

    @property
    def last_lost(self) -> tuple[int, Any]:
        """The status and the body of the answer that was lost last."""
        head, _, body = self.lost[-1].partition(b"\r\n\r\n")
        return int(head.split()[1]), json.loads(body)

    def accept(self, reader: StreamReader, writer: StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    async def end(self) -> None:
        """A client that keeps its connection must not keep the proxy."""
        for task in self._serving:
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)

    async def _serve(self, reader: StreamReader, writer: StreamWriter) -> None:
        from_server, to_server = await asyncio.open_connection(LOCAL, self._port)
        requests = asyncio.create_task(_pump(reader, to_server))
        try:
            while answer := await from_server.read(2**20):
                if self._losing:
                    self.lost.append(await _whole(answer, from_server))
                    break
                writer.write(answer)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            requests.cancel()
            await asyncio.wait({requests})
            writer.transport.abort()
            to_server.transport.abort()


async def _whole(answer: bytes, reader: StreamReader) -> bytes:
    """An answer to its end: it may come in several pieces."""
    while not (found := re.search(rb"(?i)content-length: (\d+)[^\0]*?\r\n\r\n", answer)):
        answer += await reader.read(2**16)
    missing = found.end() + int(found[1]) - len(answer)
    return answer + (await reader.readexactly(missing) if missing else b"")


async def _pump(reader: StreamReader, writer: StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(2**16):
            writer.write(data)
            await writer.drain()


@asynccontextmanager
async def lossy_proxy(port: int) -> AsyncGenerator[LossyProxy]:
    """A proxy in front of a server on this port."""
    proxy = LossyProxy(port)
    listener = await asyncio.start_server(proxy.accept, LOCAL, 0)
    proxy.url = f"http://{LOCAL}:{listener.sockets[0].getsockname()[1]}"
    async with listener:
        yield proxy
        await proxy.end()
