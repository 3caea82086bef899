"""Ways from a worker in this process to a server that lose, double or break its calls."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import httpx


class Losing(httpx.AsyncBaseTransport):
    """Of each two calls, the server's answer to the first is lost after it was given."""

    def __init__(self) -> None:
        self.lost: list[dict[str, Any]] = []
        """The bodies of those calls."""
        self._inner = httpx.AsyncHTTPTransport()
        self._calls = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        response = await whole(await self._inner.handle_async_request(request))
        self._calls += 1
        if self._calls % 2:
            self.lost.append(json.loads(request.content))
            raise httpx.ReadError("the answer was lost", request=request)
        return response

    async def aclose(self) -> None:
        await self._inner.aclose()


class Doubling(httpx.AsyncBaseTransport):
    """Each call reaches the server twice at the same time; the answer that came last counts."""

    def __init__(self) -> None:
        self.doubled = 0
        self._inner = httpx.AsyncHTTPTransport()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        answers: list[httpx.Response] = []

        async def send() -> None:
            answers.append(await whole(await self._inner.handle_async_request(request)))

        async with asyncio.TaskGroup() as group:
            group.create_task(send())
            group.create_task(send())
        self.doubled += 1
        return answers[-1]

    async def aclose(self) -> None:
        await self._inner.aclose()


class Interrupting(httpx.AsyncBaseTransport):
    """While the first call that carries a report is under way, something happens; its answer, if
    there is one, is lost.
    """

    def __init__(self, happens: Callable[[], Awaitable[None]]) -> None:
        self.has_happened = asyncio.Event()
        self._happens = happens
        self._begun = False
        self._inner = httpx.AsyncHTTPTransport()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if self._begun or not json.loads(request.content).get("reports"):
            return await self._inner.handle_async_request(request)
        self._begun = True
        call = asyncio.create_task(self._inner.handle_async_request(request))
        await self._happens()
        self.has_happened.set()
        call.cancel()
        await asyncio.wait({call})
        raise httpx.ReadError("interrupted", request=request)

    async def aclose(self) -> None:
        await self._inner.aclose()


async def whole(response: httpx.Response) -> httpx.Response:
    """The answer, read to its end."""
    await response.aread()
    return httpx.Response(response.status_code, headers=response.headers, content=response.content)
