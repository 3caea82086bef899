"""A worker process that is frozen past its leases, and thawed: what others did meanwhile stands."""

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

from compute_orchestrator.client import OrchestratorClient, Worker
from compute_orchestrator.client.models import Status
from tests.promises.servers import ServerProcess, until

pytestmark = [pytest.mark.process, pytest.mark.timeout(120)]

PROGRAM = """
import asyncio, os, pathlib
from compute_orchestrator.client import Worker

app = Worker(os.environ["URL"], worker_id="first", queues=[os.environ["QUEUE"]], concurrency=2,
             lease_seconds=1, shutdown_seconds=0)

@app.task("waiting")
async def waiting():
    print("started", flush=True)
    try:
        await asyncio.Event().wait()
    finally:
        print("cancelled", flush=True)

@app.task("ending")
async def ending():
    print("started", flush=True)
    while not pathlib.Path("over").exists():
        await asyncio.sleep(0.01)
    return "first"

app.run()
"""


@asynccontextmanager
async def first_worker(server: ServerProcess, queue: str, folder: Path) -> AsyncGenerator[Process]:
    program = folder / "program.py"
    program.write_text(PROGRAM)
    environment = {**os.environ, "URL": server.url, "QUEUE": queue}
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(program), env=environment, cwd=folder, stdout=PIPE, stderr=PIPE
    )
    try:
        async with asyncio.timeout(60):
            yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


@pytest.mark.slow
async def test_what_the_second_worker_did_stands_and_the_first_one_is_told(
    server: ServerProcess, queue: str, tmp_path: Path
) -> None:
    second = Worker(server.url, worker_id="second", queues=[queue], concurrency=2)

    @second.task("waiting")
    @second.task("ending")
    async def answer() -> str:
        return "second"

    async with (
        OrchestratorClient(server.url) as client,
        first_worker(server, queue, tmp_path) as first,
    ):
        assert first.stdout is not None
        jobs = [await client.create(name, queue=queue) for name in ("waiting", "ending")]
        for _ in jobs:
            assert await first.stdout.readline() == b"started\n"
        first.send_signal(signal.SIGSTOP)

        async def all_done() -> bool:
            return all([(await client.get(job.id)).is_final for job in jobs])

        serving = asyncio.create_task(second.serve())
        await until(all_done)
        (tmp_path / "over").touch()
        first.send_signal(signal.SIGCONT)
        assert await first.stdout.readline() == b"cancelled\n"
        second.stop()
        await serving
        first.send_signal(signal.SIGTERM)
        _, logged = await first.communicate()

        for job in jobs:
            done = await client.get(job.id)
            assert (done.status, done.result) == (Status.SUCCEEDED, "second")
            assert (done.locked_by, done.attempt, done.retry_count) == ("second", 2, 1)
            actions = [event.action for event in await client.events(job.id)]
            assert actions == ["create", "claim", "lose", "claim", "succeed"]
        waiting, ending = (said_of(job.id, logged.decode()) for job in jobs)
        assert "the lease is lost" in waiting
        # It ended at once when it was thawed: its report came first, or the news.
        assert re.search("was refused: lease-lost|the lease is lost", ending)


def said_of(job_id: int, logged: str) -> str:
    return "\n".join(line for line in logged.splitlines() if f"job {job_id} (" in line)
