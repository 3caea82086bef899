"""The client for programs without an event loop: scripts, Flask, Django.

    with BlockingClient("http://127.0.0.1:8000") as client:
        print(client.submit("resize", {"width": 3}).result(timeout_seconds=60))

Every method is made from the asynchronous one and runs on an event loop in a thread of its own,
which starts with the first call and ends with `close()`. All threads of a program may share one
client. A process that is forked has none of its parent's threads: where the parent has made a call,
the child must make a client of its own, and is told so.
"""

import functools
import os
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from concurrent.futures import CancelledError, Future
from types import TracebackType
from typing import Any, Concatenate, Generic, ParamSpec, Self, TypeVar, Unpack

import anyio
import httpx
from anyio.from_thread import BlockingPortal

from compute_orchestrator.client.client import JobFilter, OrchestratorClient
from compute_orchestrator.client.handle import JobHandle
from compute_orchestrator.client.models import Job
from compute_orchestrator.client.retries import Patience

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


class LoopThread:
    """An event loop in a thread of its own, from the first call on."""

    def __init__(self) -> None:
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None
        self._portal: BlockingPortal | None = None
        self._pid: int | None = None
        self._closed = False

    def run(self, call: Callable[[], Awaitable[R]]) -> R:
        future = self._started().start_task_soon(call)
        try:
            return future.result()
        except CancelledError:
            raise RuntimeError("the client was closed meanwhile") from None
        except BaseException:
            future.cancel()  # Ctrl-C: it is not to go on unseen
            raise

    def close(self, last: Callable[[], Awaitable[None]]) -> None:
        """Do the last call, and end the thread and all calls under way."""
        with self._starting:
            is_first, self._closed = not self._closed, True
        if is_first and self._portal and self._thread and self._pid == os.getpid():
            self._portal.call(last)
            self._portal.call(self._portal.stop, True)
            self._thread.join()

    def _started(self) -> BlockingPortal:
        if self._pid not in (None, os.getpid()):
            raise RuntimeError(
                f"this client belongs to the process {self._pid}, of which this one is a fork:"
                " make a client of its own here"
            )
        with self._starting:
            if self._closed:
                raise RuntimeError("the client is closed")
            if self._portal is None:
                self._portal = self._start()
            return self._portal

    def _start(self) -> BlockingPortal:
        # Not anyio's start_blocking_portal(): where nobody closes it, the program's end hangs.
        begun: Future[BlockingPortal] = Future()
        self._pid = os.getpid()
        self._thread = threading.Thread(
            target=anyio.run, args=[_stay, begun], name="orchestrator-client", daemon=True
        )
        self._thread.start()
        return begun.result()


async def _stay(begun: "Future[BlockingPortal]") -> None:
    async with BlockingPortal() as portal:
        begun.set_result(portal)
        await portal.sleep_until_stopped()


class Blocking(Generic[T]):
    """Stands before an object whose methods are asynchronous, and only to be used on the loop."""

    def __init__(self, behind: T, loop: LoopThread) -> None:
        self.behind = behind
        self.loop = loop


def blocking(
    method: Callable[Concatenate[T, P], Coroutine[Any, Any, R]],
) -> Callable[Concatenate[Blocking[T], P], R]:
    """The same method, which returns when it is done."""

    @functools.wraps(method)
    def call(face: Blocking[T], /, *args: P.args, **kwargs: P.kwargs) -> R:
        return face.loop.run(lambda: method(face.behind, *args, **kwargs))

    return call


class Over:
    """Comes after the last item."""


def each(
    method: Callable[Concatenate[T, P], AsyncIterator[R]],
) -> Callable[Concatenate[Blocking[T], P], Iterator[R]]:
    """The same iteration, for a plain `for`."""

    @functools.wraps(method)
    def call(face: Blocking[T], /, *args: P.args, **kwargs: P.kwargs) -> Iterator[R]:
        items = method(face.behind, *args, **kwargs)
        while not isinstance(item := face.loop.run(lambda: anext(items, Over())), Over):
            yield item

    return call


class BlockingJobHandle(Blocking[JobHandle]):
    """A job that was made, held by who wants its result."""

    def __init__(self, client: "BlockingClient", job: Job) -> None:
        super().__init__(JobHandle(client.behind, job), client.loop)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id} {self.job.name}: {self.job.status}>"

    @property
    def id(self) -> int:
        return self.behind.id

    @property
    def job(self) -> Job:
        """As it was last seen."""
        return self.behind.job

    refresh = blocking(JobHandle.refresh)
    cancel = blocking(JobHandle.cancel)
    events = blocking(JobHandle.events)
    wait = blocking(JobHandle.wait)
    result = blocking(JobHandle.result)


def handing(
    method: Callable[Concatenate[OrchestratorClient, P], Coroutine[Any, Any, JobHandle]],
) -> Callable[Concatenate["BlockingClient", P], BlockingJobHandle]:
    """The same method, with a handle that blocks."""

    @functools.wraps(method)
    def call(client: "BlockingClient", /, *args: P.args, **kwargs: P.kwargs) -> BlockingJobHandle:
        handle = client.loop.run(lambda: method(client.behind, *args, **kwargs))
        return BlockingJobHandle(client, handle.job)

    return call


class BlockingClient(Blocking[OrchestratorClient]):
    """One server, many calls, from any thread. Use it as `with`, or close it with `close()`."""

    def __init__(
        self,
        url: str,
        *,
        timeout_seconds: float = 10.0,
        patience: Patience | None = None,
        max_connections: int = 16,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        behind = OrchestratorClient(
            url,
            timeout_seconds=timeout_seconds,
            patience=patience,
            max_connections=max_connections,
            transport=transport,
        )
        super().__init__(behind, LoopThread())
        self.url = behind.url

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Calls that other threads still make end with a RuntimeError."""
        self.loop.close(self.behind.aclose)

    def iter_jobs(
        self, *, page_size: int | None = None, **filters: Unpack[JobFilter]
    ) -> Iterator[Job]:
        """All of them, page by page."""
        for page in self.iter_pages(page_size=page_size, **filters):  # not a hop for each job
            yield from page.jobs

    create = blocking(OrchestratorClient.create)
    create_many = blocking(OrchestratorClient.create_many)
    submit = handing(OrchestratorClient.submit)
    get = blocking(OrchestratorClient.get)
    list_jobs = blocking(OrchestratorClient.list_jobs)
    iter_pages = each(OrchestratorClient.iter_pages)
    list_events = blocking(OrchestratorClient.list_events)
    events = blocking(OrchestratorClient.events)

    claim = blocking(OrchestratorClient.claim)
    sync = blocking(OrchestratorClient.sync)
    heartbeat = blocking(OrchestratorClient.heartbeat)
    report = blocking(OrchestratorClient.report)
    report_succeeded = blocking(OrchestratorClient.report_succeeded)
    report_failed = blocking(OrchestratorClient.report_failed)
    report_released = blocking(OrchestratorClient.report_released)
    report_cancelled = blocking(OrchestratorClient.report_cancelled)

    cancel = blocking(OrchestratorClient.cancel)
    retry = blocking(OrchestratorClient.retry)
    reap = blocking(OrchestratorClient.reap)
    queues = blocking(OrchestratorClient.queues)
    pause_queue = blocking(OrchestratorClient.pause_queue)
    resume_queue = blocking(OrchestratorClient.resume_queue)
    workers = blocking(OrchestratorClient.workers)
    stats = blocking(OrchestratorClient.stats)
