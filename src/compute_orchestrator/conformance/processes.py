"""The server and the workers of a run: each in a session of its own, all ended at its end."""

import asyncio
import os
import re
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

START_SECONDS: Final = 60.0
END_SECONDS: Final = 5.0
SHOWN_LINES: Final = 15

# `-P`: the user's folder may hold modules of any name. The store is thrown away after the run.
SERVE: Final = (sys.executable, "-P", "-m", "compute_orchestrator.cli.app", "serve")
SERVER_SETTINGS: Final = {
    "ORC_HOST": "127.0.0.1",
    "ORC_PORT": "0",
    "ORC_LOG_LEVEL": "error",
    "ORC_REAPER_INTERVAL_SECONDS": "0.2",
    "ORC_SQLITE_SYNCHRONOUS": "OFF",
}


class CannotRun(Exception):
    """The server or the worker can't be started; the words say why."""


class WorkerProcess:
    """The worker under test."""

    def __init__(self, process: Process, log: Path) -> None:
        self._process = process
        self._log = log

    @property
    def code(self) -> int | None:
        """Its exit code; minus the signal that killed it; None while it runs."""
        return self._process.returncode

    def terminate(self) -> None:
        with suppress(ProcessLookupError):
            self._process.terminate()

    async def ended(self, seconds: float | None = None) -> int | None:
        """Its exit code, as soon as there is one; None when the time is over."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                return await self._process.wait()
        return None

    def last_lines(self) -> list[str]:
        """The end of what it wrote."""
        return self._log.read_text(errors="replace").splitlines()[-SHOWN_LINES:]


def environment(own: Mapping[str, str]) -> dict[str, str]:
    """What a process of a run sees: no ORC_ setting but its own, and no proxy on the way."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("ORC_")}
    return inherited | {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"} | dict(own)


@asynccontextmanager
async def running_worker(
    command: Sequence[str], settings: Mapping[str, str], log: Path
) -> AsyncGenerator[WorkerProcess]:
    """Started in the user's folder, and killed with all that it started.

    What it leaves in the folder for temporary files goes with the run's own.
    """
    own = {**settings, "TMPDIR": str(log.parent)}
    with log.open("wb") as output:
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                env=environment(own),
                stdin=DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        except OSError as error:
            raise CannotRun(f"can't start {command[0]!r}: {error.strerror}") from error
    try:
        yield WorkerProcess(process, log)
    finally:
        _kill_session(process.pid)
        await process.wait()


def _kill_session(leader: int) -> None:
    """What the worker started may have process groups of its own: where the system tells, all of
    its session is killed.
    """
    with suppress(ProcessLookupError):
        os.killpg(leader, signal.SIGKILL)
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(ProcessLookupError, PermissionError):
            if os.getsid(int(entry.name)) == leader:
                os.kill(int(entry.name), signal.SIGKILL)


@asynccontextmanager
async def running_server(folder: Path) -> AsyncGenerator[str]:
    """The URL of a server on an SQLite file in the folder, which is ready."""
    settings = {**SERVER_SETTINGS, "ORC_DATABASE_URL": f"sqlite+aiosqlite:///{folder / 'orc.db'}"}
    process = await asyncio.create_subprocess_exec(
        *SERVE,
        env=environment(settings),
        cwd=folder,
        stdin=DEVNULL,
        stdout=PIPE,
        start_new_session=True,  # Ctrl-C in the terminal is for the command, which then ends it
    )
    try:
        yield await _address(process)
    finally:
        with suppress(ProcessLookupError):
            process.terminate()
        try:
            async with asyncio.timeout(END_SECONDS):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()


async def _address(process: Process) -> str:
    """What it says when it listens."""
    assert process.stdout is not None  # noqa: S101 - a pipe, as asked for
    try:
        async with asyncio.timeout(START_SECONDS):
            while line := await process.stdout.readline():
                if found := re.search(rb"http://127\.0\.0\.1:\d+", line):
                    return found[0].decode()
    except TimeoutError:
        raise CannotRun(f"the server did not start in {START_SECONDS:.0f} s") from None
    raise CannotRun("the server ended while it started")
