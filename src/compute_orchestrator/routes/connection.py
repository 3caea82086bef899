"""Whether the client is still there, for answers that are waited for."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from fastapi import Request


@asynccontextmanager
async def client_gone(request: Request) -> AsyncGenerator["asyncio.Future[None]"]:
    """Done when the client's connection closes: nothing else tells a handler so."""
    gone = asyncio.get_running_loop().create_future()

    async def watch() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        gone.set_result(None)

    watching = asyncio.create_task(watch())
    try:
        yield gone
    finally:
        watching.cancel()
        await asyncio.wait({watching})
