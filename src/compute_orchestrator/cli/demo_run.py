"""One run of the demo: a server, three workers, real jobs, a kill, and what is stored then."""

import asyncio
import signal
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from compute_orchestrator.cli.demo_audit import path_of
from compute_orchestrator.cli.demo_processes import Child, Children
from compute_orchestrator.cli.demo_report import Expected
from compute_orchestrator.cli.demo_tasks import (
    NAME_VARIABLE,
    QUEUE,
    TASK,
    URL_VARIABLE,
    library,
)
from compute_orchestrator.cli.demo_view import View
from compute_orchestrator.client import OrchestratorClient, Patience
from compute_orchestrator.client.models import Job

T = TypeVar("T")
R = TypeVar("R")

WORKERS: Final = 3
CALLS_AT_ONCE: Final = 8
BACKOFF_SECONDS: Final = 0.1
LOOK_SECONDS: Final = 0.4
START_LOOK_SECONDS: Final = 0.05
FREEZE_SECONDS: Final = 0.05
START_SECONDS: Final = 60.0
STALL_SECONDS: Final = 30.0

SERVER_SETTINGS: Final = {
    "ORC_REAPER_INTERVAL_SECONDS": "0.5",  # a lease of 3 s needs passes at least every second
    "ORC_LOG_LEVEL": "warning",
}


class DemoFailed(Exception):
    """The demo could not be run to its end; the words say why."""


@dataclass(frozen=True, slots=True)
class Crew:
    """The processes of one run: the server, where it listens, and the workers by their id."""

    server: Child
    url: str
    workers: Mapping[str, Child]


def start_crew(children: Children, folder: Path, port: int) -> Crew:
    """All at once: the workers ask again until the server listens."""
    port = port or free_port()
    url = f"http://127.0.0.1:{port}"
    database_url = f"sqlite+aiosqlite:///{folder / 'demo.db'}"
    command = ["serve", "--port", str(port), "--database-url", database_url]
    server = children.start("server", command, SERVER_SETTINGS)
    command = ["worker", "compute_orchestrator.cli.demo_tasks:app"]
    workers = {
        name: children.start(name, command, {URL_VARIABLE: url, NAME_VARIABLE: name})
        for name in (f"worker-{number}" for number in range(1, WORKERS + 1))
    }
    return Crew(server, url, workers)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def check_alive(child: Child) -> None:
    if not child.is_alive:
        raise DemoFailed(f"the {child.name} ended by itself; it said:\n{child.last_words()}")


async def run_demo(
    children: Children, folder: Path, view: View, *, files: Sequence[str], port: int
) -> tuple[Crew, Expected]:
    """From the start of the processes to the last result."""
    crew = start_crew(children, folder, port)
    await wait_for_server(crew.server)
    view.say(f"server: {crew.url} (pid {crew.server.pid}), a fresh SQLite file")
    pids = ", ".join(str(worker.pid) for worker in crew.workers.values())
    view.say(f"workers: {len(crew.workers)} processes (pids {pids})")
    view.say(f"jobs: {len(files)}, one for each Python file of {library()}")
    # Short patience: a server that is gone is told by its log, not by a wait.
    async with OrchestratorClient(crew.url, patience=Patience(total_seconds=2)) as client:
        return crew, await Run(client, view, crew, files).to_the_end()


async def wait_for_server(server: Child) -> None:
    try:
        async with asyncio.timeout(START_SECONDS):
            while "listens on" not in server.last_words():
                check_alive(server)
                await asyncio.sleep(START_LOOK_SECONDS)
    except TimeoutError:
        raise DemoFailed(f"the server did not start in {START_SECONDS:.0f} s") from None


class Run:
    """The jobs of one run, from their creation to the last result."""

    def __init__(
        self,
        client: OrchestratorClient,
        view: View,
        crew: Crew,
        files: Sequence[str],
    ) -> None:
        self._client = client
        self._view = view
        self._crew = crew
        self._files = files
        self._looked = asyncio.Condition()
        self._done = 0
        self._job_of_file: dict[str, int] = {}
        self._killed: str | None = None
        self._held: Sequence[int] = ()

    async def to_the_end(self) -> Expected:
        """Submit, watch and kill at the same time; back when every job has ended."""
        async with together() as group:
            group.create_task(self._submit_all())
            group.create_task(self._kill_one())
            group.create_task(self._watch())
        return Expected(self._job_of_file, self._killed or "no worker", self._held)

    async def _submit_all(self) -> None:
        """The last third waits for the kill, so that few jobs are as good as many to show it."""
        early = 2 * len(self._files) // 3
        await each(self._submit, self._files[:early])
        await self._until(lambda: self._killed is not None or self._done >= early)
        await each(self._submit, self._files[early:])

    async def _submit(self, path: str) -> None:
        job = await self._client.create(
            TASK,
            {"path": path},
            queue=QUEUE,
            retry={"base_seconds": BACKOFF_SECONDS},
            idempotency_key=path,
        )
        self._job_of_file[path] = job.id

    async def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        moved_at = loop.time()
        while self._done < len(self._files):
            await asyncio.sleep(LOOK_SECONDS)
            check_alive(self._crew.server)
            for name, worker in self._crew.workers.items():
                if name != self._killed:
                    check_alive(worker)
            before, self._done = self._done, await self._look()
            async with self._looked:
                self._looked.notify_all()
            if self._done > before:
                moved_at = loop.time()
            elif loop.time() > moved_at + STALL_SECONDS:
                raise DemoFailed(f"no job ended for {STALL_SECONDS:.0f} s")

    async def _look(self) -> int:
        """Show where things stand; the number of jobs that have ended."""
        stats = await self._client.stats()
        totals = stats.totals
        ended = totals.succeeded + totals.failed + totals.exhausted + totals.cancelled
        running = sum(queue.running for queue in stats.queues.values())
        self._view.count(
            total=len(self._files),
            claimed=ended + running + totals.retried,
            recovered=totals.lost,
            done=ended,
        )
        return ended

    async def _until(self, holds: Callable[[], bool]) -> None:
        """Asked again after each look."""
        async with self._looked:
            await self._looked.wait_for(holds)

    async def _kill_one(self) -> None:
        """In the middle: after a third is done, one worker that holds a job."""
        await self._until(lambda: self._done >= len(self._files) // 3)
        while self._done < len(self._files):
            running = await self._client.list_jobs(status="running", limit=1)
            holder = next((job.locked_by for job in running.jobs), None)
            if holder is not None and (held := await self._kill_while_it_holds(holder)):
                await asyncio.gather(*(follow(self._client, self._view, job) for job in held))
                return

    async def _kill_while_it_holds(self, name: str) -> list[Job]:
        """Freeze it, see what it holds, kill it. Nothing, and thawed, where it holds nothing."""
        worker = self._crew.workers[name]
        worker.signal(signal.SIGSTOP)
        await asyncio.sleep(FREEZE_SECONDS)
        # A write is behind all that the worker sent before: once it is answered, what is still
        # running can't be reported any more.
        await self._client.reap()
        held = [
            job
            async for job in self._client.iter_jobs(
                status="running", worker_id=name, include="payload"
            )
        ]
        if not held:
            worker.signal(signal.SIGCONT)
            return []
        worker.signal(signal.SIGKILL)
        self._killed, self._held = name, [job.id for job in held]
        self._view.say(f"killed: {name} (pid {worker.pid}) with -9; it holds {shown(held)}")
        return held


async def follow(client: OrchestratorClient, view: View, held: Job) -> None:
    """Say when it is back in its queue, when another worker has it, and when it is done.

    A worker that is quick may take it between two looks; then its time in the queue is not said.
    """
    job = held
    while job.locked_by == held.locked_by:
        job = await look_again(client, held)
    if job.locked_by is None:
        view.say(f"requeued: {shown([held])}; back in its queue, behind those that wait")
    while job.locked_by is None:
        job = await look_again(client, held)
    view.say(f"recovered: {shown([held])}; {job.locked_by} has it, attempt {job.attempt}")
    while not job.is_final:
        job = await look_again(client, held)
    view.say(f"done: {shown([held])}; {job.status} by {job.locked_by}")


async def look_again(client: OrchestratorClient, job: Job) -> Job:
    await asyncio.sleep(LOOK_SECONDS)
    return await client.get(job.id)


def shown(jobs: Iterable[Job]) -> str:
    return ", ".join(f"job {job.id} ({path_of(job)})" for job in jobs)


async def each(work: Callable[[T], Awaitable[R]], items: Iterable[T]) -> list[R]:
    """The work on each item, some at a time; the results in the items' order."""
    free = asyncio.Semaphore(CALLS_AT_ONCE)

    async def one(item: T) -> R:
        async with free:
            return await work(item)

    async with together() as group:
        tasks = [group.create_task(one(item)) for item in items]
    return [task.result() for task in tasks]


@asynccontextmanager
async def together() -> AsyncGenerator[asyncio.TaskGroup]:
    """A task group that fails with the first task's own error."""
    try:
        async with asyncio.TaskGroup() as group:
            yield group
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from None
