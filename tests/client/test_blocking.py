"""The client without an event loop, as a script, Flask or Django use it."""

import asyncio
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from textwrap import dedent

import pytest

from compute_orchestrator.client import (
    BlockingClient,
    BlockingJobHandle,
    ClaimPart,
    JobHandle,
    NewJob,
    OrchestratorClient,
    Report,
    errors,
)
from compute_orchestrator.client.models import Json, Status
from tests.client.wires import LOCAL


@pytest.fixture
def url(server_port: int) -> str:
    return f"http://{LOCAL}:{server_port}"


def public(kind: type) -> set[str]:
    return {name for name in vars(kind) if not name.startswith("_")}


def test_it_has_the_methods_of_the_asynchronous_client() -> None:
    assert public(BlockingClient) == public(OrchestratorClient) - {"aclose"} | {"close"}
    assert public(BlockingJobHandle) - {"job"} == public(JobHandle)


async def test_a_script_makes_jobs_and_gets_their_results(url: str) -> None:
    def script() -> None:
        with BlockingClient(url) as client:
            made = client.create_many([NewJob("task", n, queue="many") for n in range(5)])
            listed = client.iter_jobs(page_size=2, queue="many", order="oldest")
            assert [job.id for job in listed] == [job.id for job in made]
            assert len(list(islice(client.iter_jobs(page_size=2), 3))) == 3
            handle = client.submit("task", {"width": 3}, queue="images", max_retries=0)
            assert (handle.id, handle.job.status) == (made[-1].id + 1, Status.QUEUED)
            with pytest.raises(errors.ResultTimeout):
                handle.result(timeout_seconds=0)
            (job,) = client.sync("w", claim=ClaimPart(["images"], limit=1)).jobs
            assert handle.refresh().status == Status.RUNNING
            client.sync("w", reports=[(job, Report.succeeded(7))])
            assert handle.result(timeout_seconds=20) == 7
            again = BlockingJobHandle(client, client.get(handle.id))
            assert repr(again) == f"<BlockingJobHandle {handle.id} task: succeeded>"
            with pytest.raises(errors.JobNotFound, match="4711"):
                client.get(4711)

    await asyncio.to_thread(script)


async def test_many_threads_share_one_client(url: str) -> None:
    def result(handle: BlockingJobHandle) -> Json:
        return handle.result(timeout_seconds=20)

    def script() -> list[Json]:
        with BlockingClient(url) as client, ThreadPoolExecutor(8) as threads:
            handles = list(threads.map(client.submit, ["task"] * 24, range(24)))
            waiting = threads.map(result, handles)
            jobs = client.sync("w", claim=ClaimPart(None, limit=24)).jobs
            client.sync("w", reports=[(job, Report.succeeded(job.payload)) for job in jobs])
            return list(waiting)

    assert await asyncio.to_thread(script) == list(range(24))


async def test_closing_ends_the_calls_of_other_threads(url: str) -> None:
    ended = threading.Event()

    def wait(handle: BlockingJobHandle) -> None:
        try:
            with pytest.raises(RuntimeError, match="closed"):
                handle.result()
        finally:
            ended.set()

    def script() -> None:
        client = BlockingClient(url)
        handle = client.submit("task")
        waiting = threading.Thread(target=wait, args=[handle])
        waiting.start()
        client.close()
        waiting.join(5)
        client.close()
        with pytest.raises(RuntimeError, match="closed"):
            client.stats()

    await asyncio.to_thread(script)
    assert ended.is_set()


PROGRAM = """
    import os, signal, sys, warnings
    from compute_orchestrator.client import BlockingClient

    warnings.simplefilter("ignore")  # that a process with threads is forked
    url = sys.argv[1]
    parent = BlockingClient(url)
    handle = parent.submit("task")
    if (child := os.fork()) == 0:
        try:
            parent.stats()
        except RuntimeError as error:
            print(error, flush=True)
        parent.close()
        with BlockingClient(url) as fresh:
            print(fresh.get(handle.id).status, flush=True)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0

    signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    try:
        handle.result()
    except KeyboardInterrupt:
        print("interrupted")
    print(parent.get(handle.id).status)  # and it ends without close()
"""


@pytest.mark.process
async def test_a_fork_is_told_to_make_its_own_and_ctrl_c_ends_a_call(url: str) -> None:
    program = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        dedent(PROGRAM),
        url,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await asyncio.wait_for(program.communicate(), 30)
    forked, *lines = said.decode().splitlines()
    assert "make a client of its own" in forked, said.decode()
    assert lines == ["queued", "interrupted", "queued"]
    assert program.returncode == 0
