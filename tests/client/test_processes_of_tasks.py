"""Tasks in processes of their own: what they send back, how they die, and who ends them."""

import asyncio
import logging
import os
import signal
import sys
from asyncio.subprocess import PIPE
from collections.abc import Generator
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import anyio
import psutil
import pytest

from compute_orchestrator.client import CallNext, Context, OrchestratorClient, Worker
from compute_orchestrator.client.calling import Execution
from compute_orchestrator.client.functions import TaskFunction
from compute_orchestrator.client.models import Status
from compute_orchestrator.client.outcomes import (
    Ended,
    Raised,
    Returned,
    Stopped,
    in_short,
    report_of,
)
from compute_orchestrator.client.processes import Processes, last_words
from tests.client import hard_tasks
from tests.client.test_tasks import context
from tests.client.wires import LOCAL, working
from tests.promises.servers import until

pytestmark = pytest.mark.process

AnyTask = TaskFunction[..., ..., Any]


@pytest.fixture(scope="module")
def processes() -> Generator[Processes]:
    """One pool for all: a process takes a while to start."""
    processes = Processes()
    yield processes
    processes.close()


def drive(
    processes: Processes, function: AnyTask, job: Context | None = None, **given: Any
) -> Ended:
    return processes.run_of(function.task, job or context(payload=given)).drive()


def test_a_process_is_used_again_and_the_signals_that_stop_a_worker_do_not_end_it() -> None:
    processes = Processes()
    child = processes.take()
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(child.pid, number)  # while it starts
    processes.give_back(child)
    ended = [drive(processes, hard_tasks.square, number=number) for number in (3, 4)]
    assert ended == [
        Returned({"square": 9, "pid": child.pid}),
        Returned({"square": 16, "pid": child.pid}),
    ]
    processes.close()


def test_what_a_task_says_of_itself_comes_back(
    processes: Processes, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    job = context(payload={}, checkpoint={"page": 2})
    ended = drive(processes, hard_tasks.telling, job)
    assert ended == Returned([7, 2, {}, {"page": 3}, None])
    assert job.checkpoint == {"page": 3}
    assert caplog.messages == ["job 7 (50_, attempt 2): page 3", "mine"]
    assert [vars(it)["process"] for it in caplog.records] != [os.getpid()] * 2
    assert vars(caplog.records[0])["job_id"] == 7
    assert vars(caplog.records[1])["page"] == 3


@pytest.mark.parametrize(
    ("what", "fields", "words"),
    [
        (
            "retry",
            {"status": "failed", "retryable": True, "retry_in_seconds": 30},
            "Retry: rate limited",
        ),
        ("permanent", {"status": "failed", "retryable": False}, "Permanent: no such user"),
        ("snooze", {"status": "queued", "run_in_seconds": 600}, "Snooze: snoozed for 600 s"),
        ("exit", {"status": "failed", "retryable": True}, "SystemExit: 3"),
        (
            "own",
            {"status": "failed", "retryable": True},
            "raising.<locals>.Unpicklable: half done",
        ),
    ],
)
def test_what_a_task_raises_in_a_process_decides_as_elsewhere(
    processes: Processes, what: str, fields: dict[str, Any], words: str
) -> None:
    ended = drive(processes, hard_tasks.raising, what=what)
    assert isinstance(ended, Raised)
    said = report_of(ended).fields()
    error = said.pop("error", None)
    assert said == fields
    assert in_short(ended.error) == words
    if isinstance(error, dict):
        assert words == f"{error['type']}: {error['message']}"
        assert "hard_tasks.py" in error["traceback"]
        assert "child.py" not in error["traceback"]


async def test_middleware_lets_pass_what_a_task_raised_in_its_process(processes: Processes) -> None:
    async def passing(_: Context, call_next: CallNext) -> object:
        return await call_next()

    job = context(payload={"what": "own"})
    task = replace(hard_tasks.raising.task, processes=processes)
    threads = anyio.CapacityLimiter(1)
    run = Execution(task, {}, job, threads=threads, middleware=[passing])
    error = report_of(await run.run()).error
    assert error is not None
    assert error["type"] == "raising.<locals>.Unpicklable"


def test_a_result_that_is_no_json_and_a_cancel_that_is_obeyed_come_back(
    processes: Processes,
) -> None:
    assert isinstance(drive(processes, hard_tasks.raising, what="cancelled"), Stopped)
    ended = drive(processes, hard_tasks.unusable)
    assert report_of(ended).retryable is False


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("segfault", "was killed by SIGSEGV"),
        ("exit", "ended by itself, with exit code 3"),
    ],
)
def test_a_process_that_dies_is_a_failed_attempt_that_says_how(
    processes: Processes, how: str, words: str
) -> None:
    ended = drive(processes, hard_tasks.dying, how=how)
    assert isinstance(ended, Raised)
    report = report_of(ended)
    assert (report.status, report.retryable) == ("failed", True)
    assert report.error is not None
    with pytest.raises(Exception, match=words):
        raise ended.error
    assert isinstance(drive(processes, hard_tasks.square, number=3), Returned)


def test_the_kernels_way_to_take_memory_back_is_named() -> None:
    assert last_words(-9) == "was killed by SIGKILL (out of memory?)"
    assert last_words(-40) == "was killed by signal 40"


async def test_a_cancelled_run_is_killed_with_all_that_it_started(
    tmp_path: Path,
) -> None:
    notes = tmp_path / "notes"
    job = context(payload={"notes": str(notes)})
    threads = anyio.CapacityLimiter(1)
    task = hard_tasks.endless.task
    run = Execution(task, task.bind(job.payload, job), job, threads=threads)
    running = asyncio.create_task(run.run())
    own, started = await until(lambda: written(notes))
    running.cancel()
    assert isinstance(await running, Stopped)
    await until(lambda: gone(own, started))
    assert not run.is_stuck


def test_a_run_that_was_killed_before_it_began_does_not_run(processes: Processes) -> None:
    job = context(payload={})
    run = processes.run_of(hard_tasks.telling.task, job)
    run.kill()
    assert isinstance(run.drive(), Stopped)
    assert job.checkpoint is None


async def test_a_worker_that_has_ended_leaves_no_process(server_port: int) -> None:
    app = Worker(f"http://{LOCAL}:{server_port}")
    square = app.task("square", process=True)(hard_tasks.square)
    async with working(app):
        result = await (await square.submit(number=3)).result(30)
    assert result["square"] == 9
    assert not psutil.pid_exists(result["pid"])


def test_what_no_process_could_find_is_refused_when_it_is_registered() -> None:
    app = Worker("http://127.0.0.1:1")

    def local() -> None:
        """Has no name that an import leads to."""

    async def on_loop() -> None:
        """Is for the loop."""

    with pytest.raises(TypeError, match="must stand in a module"):
        app.task("local", process=True)(local)
    with pytest.raises(TypeError, match="on the loop"):
        app.task("on-loop", process=True)(on_loop)


PROGRAM = """
import os
from compute_orchestrator.client import Worker
from tests.client.hard_tasks import busy, endless

app = Worker(os.environ["URL"], concurrency=2, lease_seconds=1)
app.task("endless", process=True)(endless)
app.task("in-thread")(busy)

@app.task("in-process", process=True)
def in_process(seconds: float) -> str:
    busy(seconds)
    return __name__

app.run()  # with no `if __name__ == "__main__"`: a child that imports this must not work too
"""


@pytest.fixture
async def client(server_port: int) -> Any:
    async with OrchestratorClient(f"http://{LOCAL}:{server_port}") as client:
        yield client


async def program(client: OrchestratorClient, folder: Path) -> asyncio.subprocess.Process:
    path = folder / "program.py"
    path.write_text(PROGRAM)
    paths = os.pathsep.join([str(Path.cwd()), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "URL": client.url, "PYTHONPATH": paths}
    return await asyncio.create_subprocess_exec(
        sys.executable, str(path), env=environment, stderr=PIPE
    )


@pytest.mark.slow
async def test_hard_work_of_three_leases_keeps_its_lease(
    client: OrchestratorClient, tmp_path: Path
) -> None:
    made = [await client.submit(name, {"seconds": 3}) for name in ("in-thread", "in-process")]
    worker = await program(client, tmp_path)
    jobs = [await handle.wait(30) for handle in made]
    worker.send_signal(signal.SIGINT)
    _, log = await worker.communicate()
    assert worker.returncode == 0, log
    assert [(job.status, job.attempt) for job in jobs] == [(Status.SUCCEEDED, 1)] * 2, log
    assert jobs[1].result == "__mp_main__"
    for job in jobs:
        assert [event.action for event in await client.events(job.id)][1:] == ["claim", "succeed"]


@pytest.mark.slow
async def test_a_process_ends_with_a_worker_that_is_killed(
    client: OrchestratorClient, tmp_path: Path
) -> None:
    notes = tmp_path / "notes"
    await client.submit("endless", {"notes": str(notes)})
    worker = await program(client, tmp_path)
    own, started = await until(lambda: written(notes))
    started_at = (await client.stats()).now
    os.kill(own, signal.SIGTERM)  # of a terminal or a service all processes get it
    os.kill(own, signal.SIGINT)
    await until(lambda: beaten_since(client, started_at))
    assert lives(own)
    worker.kill()
    await worker.communicate()
    await until(lambda: gone(own, started))


async def beaten_since(client: OrchestratorClient, moment: datetime) -> bool:
    job = await client.get(1)
    return job.last_heartbeat_at is not None and job.last_heartbeat_at > moment


async def written(notes: Path) -> list[int]:
    """The pids that stand in the file, once they do."""
    text = await anyio.Path(notes).read_text() if await anyio.Path(notes).exists() else ""
    return [int(word) for word in text.split()] if text.endswith("\n") else []


async def gone(*pids: int) -> bool:
    return not any(map(lives, pids))


def lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
