"""A worker: which queues it takes from, which functions run its jobs, and how it is run.

    app = Worker("http://127.0.0.1:8000", queues=["images"])

    @app.task("resize")
    def resize(job: Context, url: HttpUrl, width: int) -> str: ...

    app.run()

Async functions run on the event loop and must not block it; plain ones run in threads, or with
`process=True` in processes of their own.
"""

import asyncio
import logging
import os
import signal
import sys
import threading
from collections.abc import AsyncGenerator, Callable, Generator, Mapping, Sequence
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    asynccontextmanager,
    contextmanager,
    nullcontext,
)
from typing import (
    TYPE_CHECKING,
    Any,
    Concatenate,
    ParamSpec,
    Protocol,
    TypeVar,
    cast,
    overload,
)

import anyio
import anyio.to_thread
import httpx

from compute_orchestrator.client.about import about, code_of
from compute_orchestrator.client.calling import Middleware
from compute_orchestrator.client.calls import check_url
from compute_orchestrator.client.client import OrchestratorClient
from compute_orchestrator.client.context import Context
from compute_orchestrator.client.functions import Submitter, TaskFunction
from compute_orchestrator.client.logs import LogFormat, LogLevel, log_to_stderr
from compute_orchestrator.client.names import check_segment, new_worker_id
from compute_orchestrator.client.observer import Observer
from compute_orchestrator.client.retries import ONE_TRY
from compute_orchestrator.client.serving import Plan, Serving
from compute_orchestrator.client.tasks import Task

if TYPE_CHECKING:
    from compute_orchestrator.client.jobs import JobOptions
    from compute_orchestrator.client.processes import Processes

P = ParamSpec("P")
R = TypeVar("R")
M = TypeVar("M", bound=Middleware)

Lifespan = Callable[["Worker"], AbstractAsyncContextManager[object]]

DEFAULT_URL = "http://127.0.0.1:8000"
URL_VARIABLE = "ORC_URL"

# The protocol's, for one claim.
MOST_QUEUES = 32
LONGEST_LEASE_SECONDS = 86_400

# Three calls at once, and single ones where a sync is too large for the server.
CONNECTIONS = 8

# What the event loop's own end may take: it waits for threads that tasks started by themselves.
TEARDOWN_SECONDS = 2.0


class Register(Protocol):
    """What `@app.task(...)` is: it takes the Context, where there is one, out of the signature."""

    @overload
    def __call__(
        self, function: Callable[Concatenate[Context, P], R], /
    ) -> TaskFunction[Concatenate[Context, P], P, R]: ...

    @overload
    def __call__(self, function: Callable[P, R], /) -> TaskFunction[P, P, R]: ...


class Worker:
    def __init__(
        self,
        url: str | None = None,
        *,
        queues: Sequence[str] = ("default",),
        concurrency: int = 1,
        worker_id: str | None = None,
        lease_seconds: float | None = None,
        shutdown_seconds: float = 10.0,
        timeout_seconds: float = 10.0,
        lifespan: Lifespan | None = None,
        code: str | None = None,
        metrics_port: int | None = None,
        metrics_host: str = "127.0.0.1",
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """`url` None is the server that ORC_URL names, else the one on this machine.

        `lease_seconds` None leaves a lease's length to the job or the server. `code` is the version
        that `GET /workers` shows, by default a hash of the tasks' source. With a `metrics_port`
        Prometheus finds the worker's metrics there.
        """
        if isinstance(queues, str):
            raise TypeError(f"queues is a list of names, such as [{queues!r}]")
        if not 1 <= len(queues) <= MOST_QUEUES:
            raise ValueError(f"a worker takes from 1 to {MOST_QUEUES} queues")
        if concurrency < 1:
            raise ValueError(f"concurrency must be at least 1: {concurrency}")
        if lease_seconds is not None and not 1 <= lease_seconds <= LONGEST_LEASE_SECONDS:
            raise ValueError(f"a lease has 1 to {LONGEST_LEASE_SECONDS} seconds: {lease_seconds}")
        self.url = url or os.environ.get(URL_VARIABLE) or DEFAULT_URL
        check_url(self.url)
        self.queues = tuple(check_segment(queue, "a queue") for queue in queues)
        self.concurrency = concurrency
        self.worker_id = check_segment(worker_id or new_worker_id(), "a worker id")
        self.lease_seconds = lease_seconds
        self.shutdown_seconds = shutdown_seconds
        self.timeout_seconds = timeout_seconds
        self.lifespan = lifespan
        self.code = code
        self.metrics_port: int | None = metrics_port
        self.metrics_host = metrics_host
        self._transport = transport
        self._tasks: dict[str, Task] = {}
        self._middleware: list[Middleware] = []
        self._submitter = Submitter(self.url, timeout_seconds=timeout_seconds, transport=transport)
        self._processes: Processes | None = None
        self._serving: Serving | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._early_stops = 0

    def task(
        self,
        name: str,
        *,
        process: bool = False,
        queue: str | None = None,
        priority: int | None = None,
        max_retries: int | None = None,
        lease_seconds: float | None = None,
        timeout_seconds: float | None = None,
        retry: Mapping[str, float] | None = None,
        tags: Sequence[str] | None = None,
    ) -> Register:
        """Run jobs of this name with the function, which stays callable as it is.

        With `process` it runs in a process of its own: for hard work of pure Python, and to be
        killed when its job is cancelled. The rest are the options of the jobs that are made of it
        here (`resize.submit(...)`); a job that was made elsewhere has its own. Their queue is the
        worker's first, if none is given.
        """
        given = {
            "queue": self.queues[0] if queue is None else check_segment(queue, "a queue"),
            "priority": priority,
            "max_retries": max_retries,
            "lease_seconds": lease_seconds,
            "timeout_seconds": timeout_seconds,
            "retry": retry,
            "tags": tags,
        }
        options = {option: value for option, value in given.items() if value is not None}

        def register(function: Callable[..., Any]) -> TaskFunction[..., ..., Any]:
            if name in self._tasks:
                raise ValueError(f"there is a task {name!r} already")
            body = function.function if isinstance(function, TaskFunction) else function
            task = Task.of(name, body, processes=self._own_processes() if process else None)
            self._tasks[name] = task
            return TaskFunction(body, task, self._submitter, cast("JobOptions", options))

        return cast("Register", register)

    def middleware(self, function: M) -> M:
        """Run every task inside this: `async def timed(job, call_next)`; the first is outermost.

        `await call_next()` runs the task. It gives the result as JSON, or raises what the task
        raised; what the middleware returns or raises stands in its place.
        """
        self._middleware.append(function)
        return function

    async def serve(self) -> None:
        """Work until `stop()` is called. Signals are the caller's business; see `run()`."""
        await self._serve(drain=False)

    async def drain(self) -> None:
        """Work until there is no job that it could take now, and what it took has ended."""
        await self._serve(drain=True)

    def stop(self) -> None:
        """Stop in good order, from any thread. The second call releases at once.

        Before `serve()` has begun there is nothing to stop, and it does nothing.
        """
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._stop)

    @contextmanager
    def attached_to(
        self, url: str, transport: httpx.AsyncBaseTransport | None = None
    ) -> Generator[None]:
        """Be a worker of another server meanwhile, without metrics: `compute_orchestrator.testing`
        lends it one.
        """
        before = self.url, self._transport, self.metrics_port
        self.url, self._transport, self.metrics_port = url, transport, None
        try:
            with self._submitter.attached_to(url, transport):
                yield
        finally:
            self.url, self._transport, self.metrics_port = before

    async def aclose(self) -> None:
        """Close the client that `submit()` uses on the running loop."""
        await self._submitter.aclose()

    def close(self) -> None:
        """Close the client that `submit_blocking()` uses."""
        self._submitter.close()

    def run(
        self,
        *,
        drain: bool = False,
        log_level: LogLevel = "info",
        log_format: LogFormat = "text",
    ) -> None:
        """Work until SIGTERM or SIGINT; a second signal releases at once. For the main thread.

        With `drain` it also ends where `drain()` does.

        What happens is logged to standard error, from `log_level` on, unless the program has set
        up its logging itself; as a line of text or, with `log_format` json, as an object a line.

        A thread can't be stopped from outside. Where a plain function still runs when everything
        else is over, its job was released, and the process is ended by `os._exit(0)`: without
        `atexit` and without what stands after `run()`.
        """
        if _is_imported_by_a_child():
            return
        log_to_stderr(log_level, log_format)
        teardown = threading.Timer(TEARDOWN_SECONDS, _leave)
        teardown.daemon = True
        asyncio.run(self._serve_until_signal(teardown, drain=drain))
        teardown.cancel()
        if self._serving is not None and self._serving.is_stuck:
            _leave()

    async def _serve_until_signal(self, teardown: threading.Timer, *, drain: bool) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        await self._serve(drain=drain)
        teardown.start()

    async def _serve(self, *, drain: bool) -> None:
        if not self._tasks:
            raise ValueError("the worker has no task; register one with @app.task(name)")
        if self._loop is not None:
            raise RuntimeError("the worker is running already")
        self._loop = asyncio.get_running_loop()
        self._serving, self._early_stops = None, 0
        try:
            async with self._surroundings() as (client, observer, state):
                self._serving = Serving(client, self._plan(observer, state, drain=drain))
                for _ in range(self._early_stops):
                    self._serving.stop()
                await self._serving.run()
        finally:
            self._loop = None

    def _stop(self) -> None:
        if self._serving is None:  # its lifespan has not begun yet
            self._early_stops += 1
        else:
            self._serving.stop()

    @asynccontextmanager
    async def _surroundings(
        self,
    ) -> AsyncGenerator[tuple[OrchestratorClient, Observer, object]]:
        """What is there while it works: the client, who counts, and what the lifespan yields."""
        client = OrchestratorClient(
            self.url,
            timeout_seconds=self.timeout_seconds,
            patience=ONE_TRY,
            max_connections=CONNECTIONS,
            transport=self._transport,
        )
        lifespan = nullcontext() if self.lifespan is None else self.lifespan(self)
        try:
            with self._observed() as observer:
                async with client, lifespan as state:
                    yield client, observer, state
        finally:
            with anyio.CancelScope(shield=True):
                await self.aclose()
                await anyio.to_thread.run_sync(self.close)
                if self._processes is not None:
                    await anyio.to_thread.run_sync(self._processes.close)

    def _observed(self) -> AbstractContextManager[Observer]:
        if self.metrics_port is None:
            return nullcontext(Observer())
        # Imported here: only who wants metrics needs the package.
        try:
            from compute_orchestrator.client.metrics import observed
        except ModuleNotFoundError as error:
            raise RuntimeError(
                "metrics_port needs prometheus_client: pip install compute-orchestrator[metrics]"
            ) from error
        return observed(self._tasks, self.metrics_port, self.metrics_host)

    def _own_processes(self) -> "Processes":
        # Imported here: multiprocessing is only for those who want it.
        from compute_orchestrator.client.processes import Processes

        self._processes = self._processes or Processes()
        return self._processes

    def _plan(self, observer: Observer, state: object, *, drain: bool) -> Plan:
        return Plan(
            worker_id=self.worker_id,
            queues=self.queues,
            concurrency=self.concurrency,
            lease_seconds=self.lease_seconds,
            shutdown_seconds=self.shutdown_seconds,
            tasks=dict(self._tasks),
            about=about(self.code or code_of(self._tasks.values())),
            middleware=tuple(self._middleware),
            observer=observer,
            drain=drain,
            state=state,
        )


def _is_imported_by_a_child() -> bool:
    """Whether a process that is to run a task imports this program, to find the task in it."""
    process = sys.modules.get("multiprocessing.process")
    return process is not None and getattr(process.current_process(), "_inheriting", False)


def _leave() -> None:
    try:
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
    finally:  # a closed pipe must not keep the process
        os._exit(0)
