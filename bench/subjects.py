"""What is measured: each subject is a server process of its own, on a free port of 127.0.0.1."""

import http.client
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.measurement import MeasurementFailed
from bench.wire import HOST

ROOT = Path(__file__).parent.parent
ORC = Path(sys.executable).with_name("orc")
START_SECONDS = 30
STOP_SECONDS = 15
NO_STORE = "none (no store)"


@dataclass(frozen=True)
class Server:
    """A subject that runs and is ready; of several processes it has several ports and pids."""

    subject: str
    durability: str
    ports: tuple[int, ...]
    pids: tuple[int, ...]


@dataclass(frozen=True)
class Subject:
    name: str
    command: Callable[[int], Sequence[str]]
    environment: dict[str, str]
    # What `GET /readyz` said -> what an answered write survives.
    durability: Callable[[dict[str, str]], str]


def ours(database: Path, name: str = "ours, SQLite") -> Subject:
    return Subject(
        name,
        command=lambda port: [str(ORC), "serve", "--port", str(port)],
        environment={
            "ORC_DATABASE_URL": f"sqlite+aiosqlite:///{database}",
            "ORC_SQLITE_SYNCHRONOUS": "FULL",
            "ORC_LOG_LEVEL": "warning",
        },
        # The server's own word, so that no figure claims more than was running.
        durability=lambda ready: f"SQLite WAL, synchronous={ready['synchronous'].upper()}",
    )


def ours_on_postgresql(url: str, name: str = "ours, PostgreSQL", pool_size: int = 10) -> Subject:
    return Subject(
        name,
        command=lambda port: [str(ORC), "serve", "--port", str(port)],
        environment={
            "ORC_DATABASE_URL": url,
            "ORC_POSTGRES_POOL_SIZE": str(pool_size),
            "ORC_LOG_LEVEL": "warning",
        },
        durability=lambda ready: f"PostgreSQL, synchronous_commit {ready['synchronous']}",
    )


def ceiling() -> Subject:
    return Subject(
        "no-store ceiling",
        # What `orc serve` sets for itself: one process, the fast loop and parser, no access log.
        command=lambda port: [
            *(sys.executable, "-m", "uvicorn", "bench.ceiling:app", "--port", str(port)),
            *("--loop", "uvloop", "--http", "httptools", "--ws", "none"),
            *("--no-access-log", "--no-proxy-headers", "--no-server-header"),
            *("--log-level", "warning"),
        ],
        environment={},
        durability=lambda _: NO_STORE,
    )


def fixed() -> Subject:
    return Subject(
        "generator ceiling",
        command=lambda port: [sys.executable, "-m", "bench.fixed", str(port)],
        environment={},
        durability=lambda _: NO_STORE,
    )


@contextmanager
def running(subject: Subject, directory: Path) -> Generator[Server]:
    port = _free_port()
    settings = {key: value for key, value in os.environ.items() if not key.startswith("ORC_")}
    log = directory / f"server-{port}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603 - our own commands
            subject.command(port),
            cwd=ROOT,
            env=settings | subject.environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        ready = _wait_until_ready(subject, process, port, log)
        yield Server(subject.name, subject.durability(ready), (port,), (process.pid,))
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return probe.getsockname()[1]


def _wait_until_ready(
    subject: Subject, process: subprocess.Popen[bytes], port: int, log: Path
) -> dict[str, str]:
    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        ready = _ask_ready(port)
        if ready is not None:
            return ready
        time.sleep(0.05)
    raise MeasurementFailed(f"{subject.name} did not become ready:\n{log.read_text()[-3000:]}")


def _ask_ready(port: int) -> dict[str, str] | None:
    connection = http.client.HTTPConnection(HOST, port, timeout=5)
    try:
        connection.request("GET", "/readyz")
        response = connection.getresponse()
        body = response.read()
    except OSError:
        return None
    finally:
        connection.close()
    return json.loads(body) if response.status == 200 else None
