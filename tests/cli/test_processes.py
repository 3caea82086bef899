"""`orc serve` and `orc demo` as a user's shell runs them: real processes."""

import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from pathlib import Path

import psutil
import pytest

from compute_orchestrator.db import migrate

pytestmark = pytest.mark.process

ORC = (sys.executable, "-m", "compute_orchestrator.cli.app")
LIBRARIES = "import alembic.command, fastapi, pydantic_settings, sqlalchemy.ext.asyncio, uvicorn"
LONGEST_SECONDS = 50

READY_SECONDS = 2.0
# Of a start nearly all is the import of the libraries; this is what they took on two idle cores.
QUIET_LIBRARIES_SECONDS = 1.4


def environment(**settings: str) -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("ORC_")}
    return clean | {f"ORC_{name.upper()}": value for name, value in settings.items()}


def url_of(database: Path) -> str:
    return f"sqlite+aiosqlite:///{database}"


class Serving:
    """A server process, once it has said where it listens."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        assert process.stdout
        self.process = process
        self.lines = [process.stdout.readline() for _ in range(3)]
        found = re.search(r"listens on (http://127\.0\.0\.1:(\d+))\n", self.lines[0])
        assert found, self.lines
        self.url, self.port = found[1], int(found[2])

    def status(self, path: str) -> int:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request("GET", path)
            return connection.getresponse().status
        finally:
            connection.close()


@contextmanager
def serving(
    database: Path,
    *flags: str,
    settings: Mapping[str, str] | None = None,
    end: signal.Signals = signal.SIGTERM,
) -> Generator[Serving]:
    """`orc serve` on a free port; it is told to stop in the end, and must end with 0."""
    process = subprocess.Popen(
        [*ORC, "serve", "--database-url", url_of(database), "--port", "0", *flags],
        env=environment(**settings or {}),
        cwd=database.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        yield Serving(process)
        process.send_signal(end)
        assert process.wait(LONGEST_SECONDS) == 0
    finally:
        process.kill()
        process.wait()
        assert process.stdout
        process.stdout.close()


def run(
    folder: Path, command: Sequence[str], **settings: str
) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        command,
        env=environment(**settings),
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=LONGEST_SECONDS,
        check=False,
    )


def assert_refused(done: "subprocess.CompletedProcess[str]", *said: str) -> None:
    """It ended with one plain sentence."""
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("orc: ")
    for words in said:
        assert words in last
    assert "Traceback" not in done.stderr
    assert "listens" not in done.stdout


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    folder = tmp_path_factory.mktemp("server")
    settings = {
        "port": "1",
        "host": "192.0.2.1",
        "database_url": url_of(folder / "other.db"),
    }
    with serving(folder / "orc.db", "--host", "127.0.0.1", settings=settings) as server:
        yield server


@pytest.fixture
def database(server: Serving) -> Path:
    folder = psutil.Process(server.process.pid).cwd()
    return Path(folder) / "orc.db"


def test_serve_says_where_it_listens_and_where_its_docs_and_its_store_are(
    server: Serving, database: Path
) -> None:
    assert server.lines[1] == f"The docs of its API are at {server.url}/docs\n"
    assert server.lines[2] == f"Its store is {database}\n"
    assert server.status("/docs") == 200


def test_the_flags_win_over_the_settings(server: Serving, database: Path) -> None:
    """It listens where the flags say; and the file is the flag's."""
    assert server.status("/livez") == 200
    assert database.stat().st_size > 0
    assert not (database.parent / "other.db").exists()


def test_a_second_server_on_the_file_ends_with_the_way_to_postgresql(
    server: Serving, database: Path
) -> None:
    """The file is named as the reason also where the port is taken too."""
    flags = ["--database-url", url_of(database), "--port", str(server.port)]
    assert_refused(run(database.parent, [*ORC, "serve", *flags]), str(database), "PostgreSQL")
    assert server.status("/livez") == 200


def test_a_port_in_use_ends_with_a_plain_sentence(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = run(tmp_path, [*ORC, "serve", "--port", port])
    assert_refused(done, f"port {port}", "in use", "--port")


def test_a_file_that_is_no_database_ends_with_a_plain_sentence(tmp_path: Path) -> None:
    (tmp_path / "broken.db").write_bytes(b"not a database " * 100)
    settings = {"database_url": "sqlite+aiosqlite:///broken.db", "port": "0"}
    assert_refused(run(tmp_path, [*ORC, "serve"], **settings), "file is not a database")


def test_a_file_of_a_newer_version_ends_with_a_plain_sentence(tmp_path: Path) -> None:
    migrate.upgrade(url_of(tmp_path / "orc.db"))
    with closing(sqlite3.connect(tmp_path / "orc.db")) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = 'future'")
    done = run(tmp_path, [*ORC, "serve", "--port", "0"])
    assert_refused(done, "future", "newer version", "restore a backup")
    assert len(done.stderr.splitlines()) == 1


def test_an_existing_file_is_served_within_two_seconds(tmp_path: Path) -> None:
    """On a machine that does other things too, as much later as the libraries alone need longer."""
    database = tmp_path / "orc.db"
    migrate.upgrade(url_of(database))
    started = time.perf_counter()
    with serving(database, end=signal.SIGINT) as server:
        while server.status("/readyz") != 200:
            pass
        took = time.perf_counter() - started
    libraries = seconds_to_import_the_libraries()
    assert took <= READY_SECONDS * max(1.0, libraries / QUIET_LIBRARIES_SECONDS), libraries


def seconds_to_import_the_libraries() -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", LIBRARIES], check=True, timeout=LONGEST_SECONDS)
    return time.perf_counter() - started


def pids_in(text: str) -> list[int]:
    """The server's and the workers', as the demo says them."""
    server = re.search(r"^server: .*\(pid (\d+)\)", text, re.MULTILINE)
    workers = re.search(r"^workers: .*\(pids (\d+), (\d+), (\d+)\)", text, re.MULTILINE)
    assert server
    assert workers
    return [int(pid) for pid in (*server.groups(), *workers.groups())]


def alive(pids: Sequence[int]) -> list[int]:
    return [
        pid
        for pid in pids
        if psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    ]


@pytest.mark.slow
def test_a_small_demo_recovers_a_job_and_keeps_its_server(tmp_path: Path) -> None:
    done = run(tmp_path, ["env", f"TMPDIR={tmp_path}", *ORC, "demo", "--files", "90", "--keep"])
    kept = re.search(
        r"goes on at http://127\.0\.0\.1:(\d+) .* Stop it: kill (\d+)$", done.stdout, re.MULTILINE
    )
    assert kept, (done.stdout, done.stderr)
    server = psutil.Process(int(kept[2]))
    try:
        assert done.returncode == 0
        assert re.search(
            r"^killed: worker-\d .* with -9; it holds job \d+ ", done.stdout, re.MULTILINE
        )
        assert re.search(r"^recovered: job \d+ .* attempt 2$", done.stdout, re.MULTILINE)
        assert re.search(r"^done: job \d+ .*; succeeded by worker-\d$", done.stdout, re.MULTILINE)
        assert "Proof: 90 jobs were accepted and 90 results are stored" in done.stdout
        assert alive(pids_in(done.stdout)) == [server.pid]
        connection = HTTPConnection("127.0.0.1", int(kept[1]), timeout=10)
        connection.request("GET", "/readyz")
        assert connection.getresponse().status == 200
        connection.close()
    finally:
        server.terminate()
        psutil.wait_procs([server], timeout=LONGEST_SECONDS)


@pytest.mark.slow
def test_a_demo_that_is_stopped_leaves_nothing_behind(tmp_path: Path) -> None:
    demo = subprocess.Popen(
        [*ORC, "demo"],
        env={**environment(), "TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert demo.stdout
    said = ""
    while "jobs:" not in said:
        line = demo.stdout.readline()
        assert line, said
        said += line
    pids = pids_in(said)
    assert alive(pids) == pids
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGINT):  # impatience leaves no orphans
        demo.send_signal(number)
    _, error = demo.communicate(timeout=LONGEST_SECONDS)
    assert demo.returncode == 130
    assert error == "orc: stopped; every process of the demo has ended\n"
    assert alive(pids) == []
    assert list(tmp_path.iterdir()) == []
