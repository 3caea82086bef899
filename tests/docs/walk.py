"""A walk through pages, as a reader makes it: files are written, commands run, output compared.

The server of a walk takes a free port; the pages' own, 8000, is replaced wherever it stands.
"""

import os
import re
import shlex
import signal
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Self

from tests.docs.exchanges import Tokens, written
from tests.docs.pages import Block, blocks, short

BIN = Path(sys.executable).parent
ADDRESS = "127.0.0.1:8000"
GOES_ON = re.compile(r"^orc (serve|worker .*)$", re.MULTILINE)
LONGEST_SECONDS = 120

DIFFERS = re.compile(
    r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ"  # a moment
    r"|(?:\d+ h )?\d+ min(?: \d+ s)?|\d+\.\d s"  # a duration
    r"|\S+-\d+-[0-9a-f]{8}|host \S+, pid \d+|code [0-9a-f]{12}"  # a worker
)


def assert_said(written: str, said: str, *, alike: bool) -> None:
    """What a page has below a block is what the block printed. Where it is only `alike`, what
    differs each time counts for nothing, nor do the columns' widths; `...` is the rest.
    """
    if not alike:
        assert said == written
        return
    wanted, came = settled(written), settled(said)
    if wanted[-1] == ["..."]:
        wanted = wanted[:-1]
        came = came[: len(wanted)]
    assert came == wanted


def settled(text: str) -> list[list[str]]:
    """Its words, line by line, with one for each time, duration and worker."""
    return [DIFFERS.sub("~", line).split() for line in text.splitlines()]


class Walk:
    """A reader with a folder of her own, who leaves running what she started: a second page's
    `orc serve` finds it there. At the end it is told to stop, and must end well.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._address = ADDRESS
        self._started: dict[str, subprocess.Popen[str]] = {}
        self._said = ""
        clean = {name: value for name, value in os.environ.items() if not name.startswith("ORC_")}
        self._environment = clean | {
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "ORC_PORT": "0",
            "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1",
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        last_first = list(reversed(self._started.values()))  # workers before their server
        for process in last_first:
            process.send_signal(signal.SIGTERM)
        codes = [process.wait(LONGEST_SECONDS) for process in last_first]
        for process in last_first:
            assert process.stdout
            process.stdout.close()
        assert codes == [0] * len(codes), (codes, self.log)

    @property
    def log(self) -> str:
        """What the processes wrote to standard error."""
        path = self._folder / "log.txt"
        return path.read_text() if path.exists() else ""

    def page(self, page: Path) -> None:
        """Do what every block of a page says."""
        for before, block in pairwise([None, *blocks(page)]):
            assert block
            try:
                self._step(block, before)
            except AssertionError as error:
                error.add_note(f"{short(page)}:{block.line}")
                raise

    def _step(self, block: Block, before: Block | None) -> None:
        text = block.text.replace(ADDRESS, self._address)
        title = block.note("title")
        match block.language:
            case "python" if title:
                (self._folder / title).write_text(text)
            case "python":
                self._said = self._run([sys.executable, "-"], text)
            case "bash":
                self._said = self._run(["bash", "-euo", "pipefail", "-s"], text)
            case "console":
                for command in GOES_ON.findall(text):
                    self._start(f"orc {command}")
            case "json" if before and before.language == "bash":
                assert Tokens().differences(written(text), written(self._said)) == []
            case "text" if before and before.language in ("bash", "python"):
                assert_said(text, self._said, alike=block.notes == "like")
            case _:
                pass

    def _run(self, command: list[str], program: str) -> str:
        done = subprocess.run(
            command,
            input=program,
            cwd=self._folder,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=LONGEST_SECONDS,
            check=False,
        )
        assert done.returncode == 0, (program, done.stdout, done.stderr, self.log)
        return done.stdout

    def _start(self, command: str) -> None:
        if command in self._started:
            return
        with (self._folder / "log.txt").open("a") as log:
            process = subprocess.Popen(
                shlex.split(command),
                cwd=self._folder,
                env=self._environment,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        self._started[command] = process
        if command == "orc serve":
            assert process.stdout
            line = process.stdout.readline()
            found = re.search(r"http://(127\.0\.0\.1:\d+)", line)
            assert found, (line, self.log)
            self._address = found[1]
            self._environment["ORC_URL"] = f"http://{self._address}"
