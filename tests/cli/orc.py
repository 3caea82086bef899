"""`orc` in this process, on the server that a test has in its event loop."""

import asyncio
import json
from typing import Any

import httpx
from typer.testing import CliRunner, Result

from compute_orchestrator.cli.app import app
from compute_orchestrator.client import OrchestratorClient, Patience
from tests.conftest import URL, World


class Bridge(httpx.AsyncBaseTransport):
    """To a server in another event loop than the caller's."""

    def __init__(self, world: World) -> None:
        self.refusing = 0
        """So many calls are answered as by a server that is overloaded."""
        self._server = httpx.ASGITransport(world.app, client=("127.0.0.1", 50_002))
        self._loop = asyncio.get_running_loop()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if self.refusing > 0:
            self.refusing -= 1
            return httpx.Response(503, json={"code": "overloaded", "detail": "Not now."})
        call = asyncio.run_coroutine_threadsafe(self._call(request), self._loop)
        return await asyncio.wrap_future(call)

    async def _call(self, request: httpx.Request) -> httpx.Response:
        answer = await self._server.handle_async_request(request)
        content = await answer.aread()
        return httpx.Response(answer.status_code, headers=answer.headers, content=content)


class Orc:
    """The command: its words go in, what it said and its exit code come out."""

    def __init__(self, world: World) -> None:
        self.bridge = Bridge(world)

    async def __call__(self, *words: str, stdin: str | None = None) -> Result:
        """It runs in a thread: it has an event loop of its own."""
        runner = CliRunner()
        return await asyncio.to_thread(
            lambda: runner.invoke(app, list(words), prog_name="orc", input=stdin)
        )

    def open_client(self, _url: str, *, patience_seconds: float) -> OrchestratorClient:
        patience = Patience(total_seconds=patience_seconds)
        return OrchestratorClient(URL, patience=patience, transport=self.bridge)


def done(result: Result) -> str:
    """What was written by a command that did what it was to do."""
    assert result.exit_code == 0, (result.stdout, result.stderr)
    return result.stdout


def documents(result: Result) -> list[Any]:
    """The JSON Lines of a command."""
    return [json.loads(line) for line in done(result).splitlines()]


def refused(result: Result, code: int) -> str:
    """The one sentence of a command that ended with this code and wrote nothing else."""
    assert (result.exit_code, result.stdout) == (code, ""), (result.stdout, result.stderr)
    assert result.stderr.startswith("orc: ")
    assert result.stderr.count("\n") == 1
    return result.stderr.removeprefix("orc: ").removesuffix("\n")
