"""One run of the demo: a store and who serves it, three workers, real jobs, a kill, the end."""

import asyncio
import signal
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Final, TypeVar

from compute_orchestrator.cli.demo_audit import path_of
from compute_orchestrator.cli.demo_postgres import start_postgres
from compute_orchestrator.cli.demo_processes import ORC, Child, Children, DemoFailed
from compute_orchestrator.cli.demo_report import Expected
from compute_orchestrator.cli.demo_tasks import (
    NAME_VARIABLE,
    QUEUE,
    TASK,
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
FREEZE_SECONDS: Final = 0.5
STALL_SECONDS: Final = 30.0

SERVER_SETTINGS: Final = {
    "ORC_REAPER_INTERVAL_SECONDS": "0.5",  # a lease of 3 s needs passes at least every second
    "ORC_LOG_LEVEL": "warning",
}


@dataclass(frozen=True, slots=True)
class Store:
    """Where the jobs are kept. `process` is the database's, where it is one of its own."""

    name: str
    url: str
    servers: int
    process: Child | None = None


@dataclass(frozen=True, slots=True)
class Server:
    """A server process, and where it listens."""

    process: Child
    url: str


@dataclass(frozen=True, slots=True)
class Crew:
    """The processes of one run. Each worker, by its id, has one of the servers."""

    store: Store
    servers: Sequence[Server]
    workers: Mapping[str, Child]
    server_of: Mapping[str, Server]

    @property
    def staying(self) -> list[Child]:
        """Those that make no sense without each other: the servers and their database."""
        database = [] if self.store.process is None else [self.store.process]
        return [*(server.process for server in self.servers), *database]


def sqlite_store(folder: Path) -> Store:
    return Store("a fresh SQLite file", f"sqlite+aiosqlite:///{folder / 'demo.db'}", servers=1)


async def postgres_store(children: Children, folder: Path) -> Store:
    database = await start_postgres(children, folder)
    name = f"a fresh PostgreSQL {database.version} (pid {database.process.pid})"
    return Store(name, database.url, servers=2, process=database.process)


def start_crew(children: Children, store: Store, port: int) -> Crew:
    """All at once: the workers ask again until their server listens."""
    servers: list[Server] = []
    for number, free in enumerate(free_ports(store.servers), start=1):
        mine = port if port and not servers else free
        command = [*ORC, "serve", "--port", str(mine), "--database-url", store.url]
        process = children.start(f"server-{number}", command, SERVER_SETTINGS)
        servers.append(Server(process, f"http://127.0.0.1:{mine}"))
    names = [f"worker-{number}" for number in range(1, WORKERS + 1)]
    server_of = dict(zip(names, cycle(servers), strict=False))
    command = [*ORC, "worker", "compute_orchestrator.cli.demo_tasks:app", "--url"]
    workers = {
        name: children.start(name, [*command, server.url], {NAME_VARIABLE: name})
        for name, server in server_of.items()
    }
    return Crew(store, servers, workers, server_of)


def free_ports(count: int) -> list[int]:
    """Held all at once, so that no two are the same."""
    with ExitStack() as held:
        listeners = [
            held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)
        ]
        return [listener.getsockname()[1] for listener in listeners]


async def run_demo(
    children: Children, folder: Path, view: View, *, files: Sequence[str], port: int, postgres: bool
) -> tuple[Crew, Expected]:
    """From the start of the processes to the last result."""
    store = await postgres_store(children, folder) if postgres else sqlite_store(folder)
    view.say(f"store: {store.name}")
    crew = start_crew(children, store, port)
    for server in crew.servers:
        await server.process.until_it_says("listens on")
        view.say(f"server: {server.url} (pid {server.process.pid})")
    pids = ", ".join(str(worker.pid) for worker in crew.workers.values())
    view.say(f"workers: {len(crew.workers)} processes (pids {pids})")
    view.say(f"jobs: {len(files)}, one for each Python file of {library()}")
    # Short patience: a server that is gone is told by its log, not by a wait.
    patience = Patience(total_seconds=2)
    async with OrchestratorClient(crew.servers[0].url, patience=patience) as client:
        return crew, await Run(client, view, crew, files).to_the_end()


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
            for child in self._crew.staying:
                child.check_alive()
            for name, worker in self._crew.workers.items():
                if name != self._killed:
                    worker.check_alive()
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
        # A write through its server is behind all that the worker sent before: once it is answered,
        # what is still running can't be reported any more. (On PostgreSQL a server writes some
        # things side by side: there it is the time before that lets the worker's come first.)
        async with OrchestratorClient(self._crew.server_of[name].url) as its_server:
            await its_server.reap()
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
