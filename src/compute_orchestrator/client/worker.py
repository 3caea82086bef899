"""A worker: which queues it takes from, which functions run its jobs, and how it is run.

    app = Worker("http://127.0.0.1:8000", queues=["images"])

    @app.task("resize")
    def resize(job: Context, url: HttpUrl, width: int) -> str: ...

    app.run()

Async functions run on the event loop and must not block it; plain ones run in threads.
"""

import asyncio
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import httpx

from compute_orchestrator.client.calls import check_url
from compute_orchestrator.client.client import OrchestratorClient
from compute_orchestrator.client.logs import LogLevel, log_to_stderr
from compute_orchestrator.client.names import check_segment, new_worker_id
from compute_orchestrator.client.retries import ONE_TRY
from compute_orchestrator.client.serving import Plan, Serving
from compute_orchestrator.client.tasks import Task

F = TypeVar("F", bound=Callable[..., Any])

# The protocol's, for one claim.
MOST_QUEUES = 32
LONGEST_LEASE_SECONDS = 86_400

# What the event loop's own end may take: it waits for threads that tasks started by themselves.
TEARDOWN_SECONDS = 2.0


class Worker:
    def __init__(
        self,
        url: str,
        *,
        queues: Sequence[str] = ("default",),
        concurrency: int = 1,
        worker_id: str | None = None,
        lease_seconds: float | None = None,
        shutdown_seconds: float = 10.0,
        timeout_seconds: float = 10.0,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """`lease_seconds` None leaves a lease's length to the job or the server."""
        if isinstance(queues, str):
            raise TypeError(f"queues is a list of names, such as [{queues!r}]")
        if not 1 <= len(queues) <= MOST_QUEUES:
            raise ValueError(f"a worker takes from 1 to {MOST_QUEUES} queues")
        if concurrency < 1:
            raise ValueError(f"concurrency must be at least 1: {concurrency}")
        if lease_seconds is not None and not 1 <= lease_seconds <= LONGEST_LEASE_SECONDS:
            raise ValueError(f"a lease has 1 to {LONGEST_LEASE_SECONDS} seconds: {lease_seconds}")
        check_url(url)
        self.url = url
        self.queues = tuple(check_segment(queue, "a queue") for queue in queues)
        self.concurrency = concurrency
        self.worker_id = check_segment(worker_id or new_worker_id(), "a worker id")
        self.lease_seconds = lease_seconds
        self.shutdown_seconds = shutdown_seconds
        self.timeout_seconds = timeout_seconds
        self._transport = transport
        self._tasks: dict[str, Task] = {}
        self._serving: Serving | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def task(self, name: str) -> Callable[[F], F]:
        """Run jobs of this name with the function. It stays callable as it is."""

        def register(function: F) -> F:
            if name in self._tasks:
                raise ValueError(f"there is a task {name!r} already")
            self._tasks[name] = Task.of(name, function)
            return function

        return register

    async def serve(self) -> None:
        """Work until `stop()` is called. Signals are the caller's business; see `run()`."""
        if not self._tasks:
            raise ValueError("the worker has no task; register one with @app.task(name)")
        if self._loop is not None:
            raise RuntimeError("the worker is running already")
        client = OrchestratorClient(
            self.url,
            timeout_seconds=self.timeout_seconds,
            patience=ONE_TRY,
            # A heartbeat and a report for each job, and a claim: none ever waits for another.
            max_connections=2 * self.concurrency + 1,
            transport=self._transport,
        )
        async with client:
            self._loop = asyncio.get_running_loop()
            self._serving = Serving(client, self._plan())
            try:
                await self._serving.run()
            finally:
                self._loop = None

    def stop(self) -> None:
        """Stop in good order, from any thread. The second call releases at once.

        Before `serve()` has begun there is nothing to stop, and it does nothing.
        """
        if self._loop is not None and self._serving is not None:
            self._loop.call_soon_threadsafe(self._serving.stop)

    def run(self, *, log_level: LogLevel = "info") -> None:
        """Work until SIGTERM or SIGINT; a second signal releases at once. For the main thread.

        What happens is logged to standard error, from `log_level` on, unless the program has set
        up its logging itself.

        A thread can't be stopped from outside. Where a plain function still runs when everything
        else is over, its job was released, and the process is ended by `os._exit(0)`: without
        `atexit` and without what stands after `run()`.
        """
        log_to_stderr(log_level)
        teardown = threading.Timer(TEARDOWN_SECONDS, _leave)
        teardown.daemon = True
        asyncio.run(self._serve_until_signal(teardown))
        teardown.cancel()
        if self._serving is not None and self._serving.is_stuck:
            _leave()

    async def _serve_until_signal(self, teardown: threading.Timer) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        await self.serve()
        teardown.start()

    def _plan(self) -> Plan:
        return Plan(
            worker_id=self.worker_id,
            queues=self.queues,
            concurrency=self.concurrency,
            lease_seconds=self.lease_seconds,
            shutdown_seconds=self.shutdown_seconds,
            tasks=dict(self._tasks),
        )


def _leave() -> None:
    try:
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
    finally:  # a closed pipe must not keep the process
        os._exit(0)
