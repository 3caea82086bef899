"""The processes of the demo: each in its own session, each with a log, all ended at the end."""

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

START_SECONDS: Final = 60.0
START_LOOK_SECONDS: Final = 0.05
STOP_SECONDS: Final = 5.0
SHOWN_LOG_LINES: Final = 15

# Invalid escapes in the files that the workers parse are no news; `-P` keeps a stray ast.py out.
PYTHON: Final = (
    sys.executable,
    *("-P", "-W", "ignore::SyntaxWarning", "-W", "ignore::DeprecationWarning"),
)
ORC: Final = (*PYTHON, "-m", "compute_orchestrator.cli.app")


class DemoFailed(Exception):
    """The demo could not be run to its end; the words say why."""


@dataclass(frozen=True, slots=True)
class Child:
    """One process that the demo started."""

    name: str
    process: "subprocess.Popen[bytes]"
    log: Path

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def is_alive(self) -> bool:
        return self.process.poll() is None

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def last_words(self) -> str:
        """The end of its log, to show why it died."""
        lines = self.log.read_text(errors="replace").splitlines()
        return "\n".join(lines[-SHOWN_LOG_LINES:])

    def check_alive(self) -> None:
        if not self.is_alive:
            raise DemoFailed(f"the {self.name} ended by itself; it said:\n{self.last_words()}")

    async def until_it_says(self, pattern: str) -> "re.Match[str]":
        """What it says when it is ready, or when it is done."""
        try:
            async with asyncio.timeout(START_SECONDS):
                while True:
                    was_alive = self.is_alive  # its last words may come after this
                    if found := re.search(pattern, self.last_words(), re.MULTILINE):
                        return found
                    if not was_alive:
                        self.check_alive()
                    await asyncio.sleep(START_LOOK_SECONDS)
        except TimeoutError:
            raise DemoFailed(f"the {self.name} did not start in {START_SECONDS:.0f} s") from None


class Children:
    """A context: whatever happens inside, no process outlives it but one that was let go."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._running: list[Child] = []

    def start(self, name: str, command: Sequence[str], settings: Mapping[str, str]) -> Child:
        """It sees no ORC_ setting but the ones given here."""
        log = self._folder / f"{name}.log"
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("ORC_")}
        with log.open("wb") as output:
            process = subprocess.Popen(  # noqa: S603 - our own command, no shell
                list(command),
                env={**inherited, **settings},
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                # Ctrl-C in the terminal is for the demo alone, which then stops them in order.
                start_new_session=True,
            )
        child = Child(name, process, log)
        self._running.append(child)
        return child

    def let_go(self, child: Child) -> None:
        """It stays when the demo is over."""
        self._running.remove(child)

    def stop(self, children: Sequence[Child]) -> None:
        """SIGTERM to all, and SIGKILL to those that do not go."""
        for child in children:
            child.signal(signal.SIGTERM)
            child.signal(signal.SIGCONT)  # one that is frozen could not obey
        deadline = time.monotonic() + STOP_SECONDS
        for child in children:
            try:
                child.process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                child.process.kill()
                child.process.wait()
            self._running.remove(child)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """The last that was started goes first: as long as there are workers, they can report."""
        for child in reversed(self._running.copy()):
            self.stop([child])
