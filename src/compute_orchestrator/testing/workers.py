"""The worker of a test: the team's app, attached to the test's server for as long as the test."""

from contextlib import AbstractAsyncContextManager, AbstractContextManager

from compute_orchestrator.client import Worker
from compute_orchestrator.testing.blocking import BlockingOrchestrator
from compute_orchestrator.testing.orchestrator import LONGEST_RUN_SECONDS, Orchestrator


class WorkerRunner:
    """What the fixture `worker` gives."""

    def __init__(self, app: Worker, orchestrator: Orchestrator) -> None:
        self.app = app
        self._orchestrator = orchestrator

    async def run(self, *, timeout_seconds: float = LONGEST_RUN_SECONDS) -> None:
        """As `Orchestrator.run`: until nothing is claimable and nothing runs."""
        await self._orchestrator.run(self.app, timeout_seconds=timeout_seconds)

    def working(self) -> AbstractAsyncContextManager[None]:
        """As `Orchestrator.working`: beside the test."""
        return self._orchestrator.working(self.app)


class BlockingWorkerRunner:
    """What the fixture `blocking_worker` gives."""

    def __init__(self, app: Worker, orchestrator: BlockingOrchestrator) -> None:
        self.app = app
        self._orchestrator = orchestrator

    def run(self, *, timeout_seconds: float = LONGEST_RUN_SECONDS) -> None:
        """As `Orchestrator.run`: until nothing is claimable and nothing runs."""
        self._orchestrator.run(self.app, timeout_seconds=timeout_seconds)

    def working(self) -> AbstractContextManager[None]:
        """As `Orchestrator.working`: beside the test."""
        return self._orchestrator.working(self.app)
