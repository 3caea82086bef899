"""Worker processes, and the signals that stop them."""

import asyncio
import os
import re
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
import asyncio, logging, os, sys, time
from compute_orchestrator.client import Worker

app = Worker(os.environ["URL"], worker_id="w", lease_seconds=5, concurrency=2,
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

if "OWN_LOG" in os.environ:
    logging.basicConfig(format="own: %(message)s", level=logging.WARNING)

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
    client: OrchestratorClient, folder: Path, shutdown_seconds: float, **settings: str
) -> AsyncGenerator[Process]:
    program = folder / "tasks.py"
    program.write_text(PROGRAM)
    environment = {
        **os.environ,
        "URL": client.url,
        "SHUTDOWN_SECONDS": str(shutdown_seconds),
        **settings,
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


async def run_and_stop(
    client: OrchestratorClient,
    folder: Path,
    *jobs: Job,
    shutdown_seconds: float,
    signals: list[signal.Signals],
) -> str:
    """Send the signals when all jobs have started: what was printed until the process ended."""
    async with worker(client, folder, shutdown_seconds) as process:
        assert process.stdout is not None
        for _ in jobs:
            assert await process.stdout.readline() == b"started\n"
        for number in signals:
            process.send_signal(number)
        printed, logged = await process.communicate()
        assert process.returncode == 0, logged
    return printed.decode()


async def test_sigterm_lets_a_job_finish(client: OrchestratorClient, tmp_path: Path) -> None:
    job = await client.create("finishing", {"seconds": 0.3})
    printed = await run_and_stop(
        client, tmp_path, job, shutdown_seconds=10, signals=[signal.SIGTERM]
    )
    assert (await client.get(job.id)).status == Status.SUCCEEDED
    assert printed == "after\n"


async def test_sigterm_releases_a_job_that_does_not_finish_in_time_at_no_cost(
    client: OrchestratorClient, tmp_path: Path
) -> None:
    job = await client.create("sleeping")
    printed = await run_and_stop(
        client, tmp_path, job, shutdown_seconds=0.1, signals=[signal.SIGTERM]
    )
    assert released(await client.get(job.id))
    assert printed == "after\n"


@pytest.mark.slow
async def test_a_second_signal_ends_also_a_process_whose_tasks_can_not_be_stopped(
    client: OrchestratorClient, tmp_path: Path
) -> None:
    stubborn = await client.create("stubborn")
    deaf = await client.create("deaf")
    signals = [signal.SIGINT, signal.SIGTERM]
    printed = await run_and_stop(
        client, tmp_path, stubborn, deaf, shutdown_seconds=3600, signals=signals
    )
    assert released(await client.get(stubborn.id))
    assert released(await client.get(deaf.id))
    assert printed == ""  # it was ended where it stood


async def test_a_script_that_runs_its_worker_logs_what_happens(
    client: OrchestratorClient, tmp_path: Path
) -> None:
    """And no line for each call."""
    await client.create("finishing", {"seconds": 0})
    async with worker(client, tmp_path, 10) as process:
        assert process.stderr is not None
        logged = ""
        while "succeeded" not in logged:
            line = (await process.stderr.readline()).decode()
            assert line, logged
            logged += line
        process.send_signal(signal.SIGTERM)
        _, rest = await process.communicate()
    lines = (logged + rest.decode()).splitlines()
    assert [re.sub(r"^[\d-]+ [\d:,]+ INFO    compute_orchestrator\.", "", it) for it in lines] == [
        f"worker: worker w at {client.url.rstrip('/')}; queues default;"
        " tasks idle, sleeping, finishing, stubborn, deaf; 2 at once",
        "job: job 1 (finishing, attempt 1): succeeded",
        "worker: stopping: no job is running",
    ]


async def test_a_script_that_has_its_own_logging_keeps_it(
    client: OrchestratorClient, tmp_path: Path
) -> None:
    await client.create("unknown")
    async with worker(client, tmp_path, 10, OWN_LOG="yes") as process:
        assert process.stderr is not None
        line = await process.stderr.readline()
        process.send_signal(signal.SIGTERM)
        _, rest = await process.communicate()
    assert line == (
        b"own: job 1 (unknown, attempt 1): handed back for 10.0 s:"
        b" there is no task of this name here\n"
    )
    assert rest == b""


def released(job: Job) -> bool:
    return (job.status, job.retry_count, job.release_count) == (Status.QUEUED, 0, 1)
