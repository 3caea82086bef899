"""The same server for tests without an event loop. The worker's loop is in a thread of its own."""

from collections.abc import Generator
from contextlib import contextmanager
from datetime import datetime
from types import TracebackType
from typing import Any, Self

from compute_orchestrator.client import Worker
from compute_orchestrator.client.blocking import Blocking, BlockingClient, LoopThread, blocking
from compute_orchestrator.client.retries import ONE_TRY
from compute_orchestrator.testing.clock import Clock
from compute_orchestrator.testing.orchestrator import Orchestrator


class BlockingClock(Blocking[Clock]):
    """The server's time as the test sees it and moves it."""

    def now(self) -> datetime:
        return self.behind.now()

    advance = blocking(Clock.advance)


class BlockingOrchestrator(Blocking[Orchestrator]):
    """Use it as `with`, or from `start()` to `stop()`."""

    def __init__(self, *, now: datetime | None = None, **settings: Any) -> None:
        """As of `Orchestrator`."""
        behind = Orchestrator(now=now, **settings)
        super().__init__(behind, LoopThread())
        self.url = behind.url
        self.transport = behind.transport
        """For clients of the test's own: `BlockingClient(url, transport=...)`."""
        self.client = BlockingClient(self.url, patience=ONE_TRY, transport=self.transport)
        self.clock = BlockingClock(behind.clock, self.loop)
        self.submit = self.client.submit

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Returns when the server answers."""
        self.behind.start()

    def stop(self) -> None:
        """Returns when the server has ended, and its store is gone."""
        self.client.close()
        self.loop.close(self.behind.client.aclose)
        self.behind.stop()

    job = blocking(Orchestrator.job)
    events = blocking(Orchestrator.events)
    lose = blocking(Orchestrator.lose)
    run = blocking(Orchestrator.run)

    @contextmanager
    def working(self, app: Worker) -> Generator[None]:
        """The worker works beside the test. At the end it is stopped at once, and hands back what
        it still runs.
        """
        working = self.behind.working(app)
        self.loop.run(working.__aenter__)
        try:
            yield
        finally:
            self.loop.run(lambda: working.__aexit__(None, None, None))
