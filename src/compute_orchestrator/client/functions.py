"""What `@app.task` makes of a function: itself, and a way to have it run by a worker.

await resize(url=..., width=3)                    runs it here and now
handle = await resize.submit(url=..., width=3)    makes a job of it
"""

import asyncio
import functools
import os
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Generic, ParamSpec, TypeVar, Unpack
from weakref import WeakKeyDictionary

import httpx

from compute_orchestrator.client.blocking import BlockingClient, BlockingJobHandle
from compute_orchestrator.client.client import OrchestratorClient
from compute_orchestrator.client.handle import JobHandle
from compute_orchestrator.client.jobs import JobOptions, NewJob
from compute_orchestrator.client.tasks import Task

C = ParamSpec("C")  # what the function is called with
P = ParamSpec("P")  # the same without its Context: what a payload brings
R = TypeVar("R")


class Submitter:
    """The clients by which tasks are submitted, made when they are first needed."""

    def __init__(
        self, url: str, *, timeout_seconds: float, transport: httpx.AsyncBaseTransport | None
    ) -> None:
        self._url = url
        self._timeout_seconds = timeout_seconds
        self._transport = transport
        self._clients: WeakKeyDictionary[asyncio.AbstractEventLoop, OrchestratorClient]
        self._clients = WeakKeyDictionary()
        self._blocking: dict[int, BlockingClient] = {}
        self._lock = threading.Lock()

    def client(self) -> OrchestratorClient:
        """That of the running loop: connections can't be shared between loops."""
        loop = asyncio.get_running_loop()
        if loop not in self._clients:
            self._clients[loop] = OrchestratorClient(
                self._url, timeout_seconds=self._timeout_seconds, transport=self._transport
            )
        return self._clients[loop]

    def blocking(self) -> BlockingClient:
        """That of this process: a fork has none of its parent's threads."""
        with self._lock:
            if os.getpid() not in self._blocking:
                self._blocking[os.getpid()] = BlockingClient(
                    self._url, timeout_seconds=self._timeout_seconds, transport=self._transport
                )
            return self._blocking[os.getpid()]

    @contextmanager
    def attached_to(self, url: str, transport: httpx.AsyncBaseTransport | None) -> Generator[None]:
        """Submit to another server meanwhile, by clients of its own."""
        before = self._url, self._transport, self._clients, self._blocking
        self._url, self._transport = url, transport
        self._clients, self._blocking = WeakKeyDictionary(), {}
        try:
            yield
        finally:
            self.close()
            self._url, self._transport, self._clients, self._blocking = before

    async def aclose(self) -> None:
        """Close the running loop's client."""
        client = self._clients.pop(asyncio.get_running_loop(), None)
        if client is not None:
            await client.aclose()

    def close(self) -> None:
        """Close the blocking client."""
        client = self._blocking.pop(os.getpid(), None)
        if client is not None:
            client.close()


class TaskFunction(Generic[C, P, R]):
    """The function, callable as before, and picklable by its name."""

    __name__: str

    def __init__(
        self, function: Callable[C, R], task: Task, submitter: Submitter, options: JobOptions
    ) -> None:
        functools.update_wrapper(self, function)
        self.function = function
        self.task = task
        self.options = options
        self._submitter = submitter

    def __call__(self, *args: C.args, **kwargs: C.kwargs) -> R:
        return self.function(*args, **kwargs)

    def __reduce__(self) -> str:
        return self.function.__qualname__

    def __repr__(self) -> str:
        return f"<task {self.task.name!r}: {self.function!r}>"

    def using(self, **options: Unpack[JobOptions]) -> "TaskFunction[C, P, R]":
        """The same task with other options for its jobs: `resize.using(priority=9).submit(...)`."""
        return TaskFunction(self.function, self.task, self._submitter, {**self.options, **options})

    def job(self, *args: P.args, **kwargs: P.kwargs) -> NewJob:
        """A job with these arguments, for `client.submit()` or `client.create_many()`.

        TypeError where the function can't be called so, ValueError where one is not of its type.
        """
        return NewJob(self.task.name, self.task.payload_of(*args, **kwargs), **self.options)

    async def submit(self, *args: P.args, **kwargs: P.kwargs) -> JobHandle:
        """Make the job, by a client that the worker keeps; `await app.aclose()` closes it."""
        return await self._submitter.client().submit(self.job(*args, **kwargs))

    def submit_blocking(self, *args: P.args, **kwargs: P.kwargs) -> BlockingJobHandle:
        """The same for programs without an event loop; `app.close()` closes its client."""
        return self._submitter.blocking().submit(self.job(*args, **kwargs))
