"""Worker processes, and the signals that stop them."""

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from compute_orchestrator.client import OrchestratorClient
from compute_orchestrator.client.models import Job, Status
from tests.client.wires import LOCAL

pytestmark = pytest.mark.process

PROGRAM = """
import asyncio, os, sys, time
from compute_orchestrator.client import Worker

app = Worker(os.environ["URL"], lease_seconds=5,
             shutdown_seconds=float(os.environ["SHUTDOWN_SECONDS"]))

@app.task("idle")
def idle():
    pass

@app.task("sleeping")
async def sleeping():
    print("started", flush=True)
    await asyncio.sleep(3600)

@app.task("finishing")
async def finishing(seconds: float):
    print("started", flush=True)
    await asyncio.sleep(seconds)

@app.task("stubborn")
def stubborn():
    print("started", flush=True)
    time.sleep(3600)

@app.task("deaf")
async def deaf():
    print("started", flush=True)
    while True:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            pass

if __name__ == "__main__":
    app.run()
    print("after", flush=True)
"""


@pytest.fixture
async def client(server_port: int) -> AsyncGenerator[OrchestratorClient]:
    async with OrchestratorClient(f"http://{LOCAL}:{server_port}") as client:
        yield client


@asynccontextmanager
async def worker(
    client: OrchestratorClient, folder: Path, shutdown_seconds: float
) -> AsyncGenerator[Process]:
    program = folder / "tasks.py"
    program.write_text(PROGRAM)
    environment = {
        **os.environ,
        "URL": client.url,
        "SHUTDOWN_SECONDS": str(shutdown_seconds),
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(program), env=environment, stdout=PIPE, stderr=PIPE
    )
    try:
        async with asyncio.timeout(40):
            yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def started(process: Process) -> None:
    assert process.stdout is not None
    assert await process.stdout.readline() == b"started\n"


async def run_and_stop(
    client: OrchestratorClient,
    folder: Path,
    name: str,
    *,
    shutdown_seconds: float,
    signals: list[signal.Signals],
    payload: object = None,
) -> tuple[Job, str, str]:
    """A job that has started when the signals come: what became of it, and what was printed."""
    job = await client.create(name, payload)
    async with worker(client, folder, shutdown_seconds) as process:
        await started(process)
        for number in signals:
            process.send_signal(number)
        printed, logged = await process.communicate()
        assert process.returncode == 0, logged
    return await client.get(job.id), printed.decode(), logged.decode()


async def test_sigterm_lets_a_job_finish(client: OrchestratorClient, tmp_path: Path) -> None:
    job, printed, _ = await run_and_stop(
        client,
        tmp_path,
        "finishing",
        shutdown_seconds=10,
        signals=[signal.SIGTERM],
        payload={"seconds": 0.3},
    )
    assert job.status == Status.SUCCEEDED
    assert printed == "after\n"


@pytest.mark.parametrize(
    ("shutdown_seconds", "signals"),
    [(0.1, [signal.SIGTERM]), (3600, [signal.SIGINT, signal.SIGTERM])],
    ids=["after its time", "at the second signal"],
)
async def test_a_job_that_does_not_finish_is_released_at_no_cost(
    client: OrchestratorClient,
    tmp_path: Path,
    shutdown_seconds: float,
    signals: list[signal.Signals],
) -> None:
    job, printed, _ = await run_and_stop(
        client, tmp_path, "sleeping", shutdown_seconds=shutdown_seconds, signals=signals
    )
    assert (job.status, job.retry_count, job.release_count) == (Status.QUEUED, 0, 1)
    assert printed == "after\n"


@pytest.mark.parametrize("name", ["stubborn", "deaf"])
async def test_a_task_that_can_not_be_stopped_does_not_hold_the_process(
    client: OrchestratorClient, tmp_path: Path, name: str
) -> None:
    job, printed, _ = await run_and_stop(
        client, tmp_path, name, shutdown_seconds=0.1, signals=[signal.SIGTERM]
    )
    assert (job.status, job.retry_count, job.release_count) == (Status.QUEUED, 0, 1)
    assert printed == ""  # the process was ended where it stood
