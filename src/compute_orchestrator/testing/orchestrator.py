"""A whole server in this process, and what a test does with it.

    async with Orchestrator() as orchestrator:
        job = await orchestrator.submit("resize", {"width": 3}, queue="images")
        await orchestrator.run(app)
        assert (await orchestrator.job(job)).result == ...

The server's time stands still but for `clock.advance()`. While it goes by, the leases of a worker
that works here are kept, as if its heartbeats came; `lose()` is how one is lost. The worker's own
time is real: when it heartbeats, and so learns of a cancel or a lost lease, and how long a call
waits for its answer.
"""

import asyncio
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Protocol, Self

from compute_orchestrator.client import OrchestratorClient, Worker
from compute_orchestrator.client.models import Event, Job
from compute_orchestrator.client.retries import ONE_TRY
from compute_orchestrator.domain.values import micros
from compute_orchestrator.testing.clock import Clock, StillClock
from compute_orchestrator.testing.server import URL, Server

LONGEST_RUN_SECONDS = 10.0


class HasId(Protocol):
    """A job as a call answered it, or a handle on one."""

    @property
    def id(self) -> int: ...


AnyJob = int | HasId


class Orchestrator:
    """Use it as `async with`, or from `start()` to `stop()`."""

    def __init__(self, *, now: datetime | None = None, **settings: Any) -> None:
        """`now` is where its time stands at first. `settings` are the server's, by their names
        without ORC_ and in lower case; the machine's ORC_ variables are not read.
        """
        still = StillClock(now or datetime.now(UTC))
        self._server = Server(still, settings)
        self.url = URL
        self.transport = self._server
        """For clients of the test's own: `OrchestratorClient(url, transport=...)`."""
        self.client = OrchestratorClient(URL, patience=ONE_TRY, transport=self.transport)
        self.clock = Clock(still, self._server.pass_time)
        self.submit = self.client.submit

    async def __aenter__(self) -> Self:
        self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Returns when the server answers."""
        self._server.start()

    def stop(self) -> None:
        """Returns when the server has ended, and its store is gone."""
        self._server.stop()

    async def job(self, job: AnyJob) -> Job:
        """The job as it stands now."""
        return await self.client.get(_id(job))

    async def events(self, job: AnyJob) -> list[Event]:
        """Its whole audit trail, oldest first."""
        return await self.client.events(_id(job))

    async def lose(self, job: AnyJob) -> Job:
        """Its worker falls silent: time goes on until the job's lease has run out. The job as it
        stands then.
        """
        held = await self.job(job)
        if held.lease_expires_at is None:
            raise ValueError(f"job {held.id} is {held.status}: nobody holds a lease on it")
        left = (held.lease_expires_at - self.clock.now()).total_seconds()
        await self._server.pass_time(micros(max(left, 0)), silent=held.id)
        return await self.job(job)

    async def run(self, app: Worker, *, timeout_seconds: float = LONGEST_RUN_SECONDS) -> None:
        """Have the worker do its work until nothing is claimable and nothing runs.

        Jobs that are to run later stay where they are: advance the clock, and run again. Raises
        TimeoutError when a task is at it for so many real seconds.
        """
        with self._alive(app):
            working = asyncio.create_task(app.drain())
            try:
                await asyncio.wait({working}, timeout=timeout_seconds)
                if not working.done():
                    raise TimeoutError(await self._still_running(timeout_seconds))
                working.result()
            finally:
                await _end(working)

    @asynccontextmanager
    async def working(self, app: Worker) -> AsyncGenerator[None]:
        """The worker works beside the test. At the end it is stopped at once, and hands back what
        it still runs.
        """
        with self._alive(app):
            working = asyncio.create_task(app.serve())
            try:
                yield
                if working.done():  # it never ends by itself, but by an error
                    working.result()
            finally:
                await _end(working)

    @contextmanager
    def _alive(self, app: Worker) -> Generator[None]:
        self._server.living.append(app.worker_id)
        try:
            with app.attached_to(self.url, self.transport):
                yield
        finally:
            self._server.living.remove(app.worker_id)

    async def _still_running(self, seconds: float) -> str:
        running = [f"{it.id} ({it.name})" async for it in self.client.iter_jobs(status="running")]
        return f"after {seconds:g} s the worker is not done; running: {', '.join(running) or '-'}"


async def _end(working: "asyncio.Task[None]") -> None:
    working.cancel()
    await asyncio.wait({working})


def _id(job: AnyJob) -> int:
    return job if isinstance(job, int) else job.id
