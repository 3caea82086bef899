"""Processes of `orc` that are there at once: forked from one that has imported the package already.

To import it is nearly all of a second that a start takes, and the tests start a hundred servers.
`tests/cli` and `tests/promises/test_starting_and_stopping.py` start them the long way.
"""

import asyncio
import multiprocessing
import os
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from multiprocessing.context import ForkServerContext
from pathlib import Path

IMPORTED = ("compute_orchestrator.cli.serving", "compute_orchestrator.main", "uvloop", "httptools")


@cache
def _context() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, *IMPORTED])
    return context


class ForkedProcess:
    """What the tests use of `asyncio.subprocess.Process`."""

    def __init__(
        self, words: Sequence[str], *, environment: Mapping[str, str], folder: Path, log: Path
    ) -> None:
        self._process = _context().Process(
            target=_orc, args=(list(words), dict(environment), folder, log)
        )
        self._process.start()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    async def wait(self) -> int:
        loop, ended = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(self._process.sentinel, ended.set)
        try:
            await ended.wait()
        finally:
            loop.remove_reader(self._process.sentinel)
        self._process.join()
        assert self.returncode is not None
        return self.returncode


def _orc(words: list[str], environment: dict[str, str], folder: Path, log: Path) -> None:
    """In the new process: `orc` with these words."""
    from compute_orchestrator.cli.app import main

    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    written = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(written, 1)
    os.dup2(written, 2)
    sys.argv = ["orc", *words]
    main()
