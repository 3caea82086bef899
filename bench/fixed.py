"""The smallest server there is: fixed bytes for each request. What the generator does against it
is the generator's own ceiling.

Each piece of data is taken for one whole request: true for the generator, which has one small
request under way and sends it in one write, and for nobody else.
"""

import asyncio
import sys
from typing import cast

import uvloop

from bench.wire import HOST, answer, encode

# As long as the server's answer to a claim; the other answers are shorter there by a token.
JOB = encode({"id": 123456, "status": "running", "lease_token": "0" * 32, "filling": "x" * 750})
ANSWERS = {
    b"POST /jobs ": answer(201, "Created", JOB),
    b"POST /jobs/": answer(200, "OK", JOB),
    b"PATCH /jobs": answer(200, "OK", JOB),
    b"GET /readyz": answer(200, "OK", b"{}"),
}
_LENGTH_OF_KEY = 11


class FixedAnswer(asyncio.Protocol):
    _transport: asyncio.WriteTransport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.WriteTransport", transport)

    def data_received(self, data: bytes) -> None:
        self._transport.write(ANSWERS[data[:_LENGTH_OF_KEY]])


async def serve(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(FixedAnswer, HOST, port)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
