"""The pytest plugin: the fixtures `orchestrator` and `worker`, and both for tests without a loop.

pytest loads this module in every run on a machine that has the package, so at its top it imports
nothing but pytest. The fixtures are plain functions: whichever plugin runs the async tests, they
serve it.
"""

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Generator

    from compute_orchestrator.client import Worker
    from compute_orchestrator.testing import BlockingOrchestrator, Orchestrator
    from compute_orchestrator.testing.workers import BlockingWorkerRunner, WorkerRunner


@pytest.fixture
def orchestrator_settings() -> dict[str, Any]:
    """The settings of this test's server, to be overridden: `{"lease_seconds": 30}`."""
    return {}


@pytest.fixture
def worker_app() -> "Worker":
    """Which worker `worker` runs. To be overridden, in a conftest.py for example."""
    pytest.fail(
        "the fixture `worker` does not know your worker: write a fixture `worker_app` that "
        "returns it, such as `from tasks import app` and `return app`",
        pytrace=False,
    )


@pytest.fixture
def orchestrator(orchestrator_settings: dict[str, Any]) -> "Generator[Orchestrator]":
    """A server of this test's own, whose time the test moves."""
    _require_server()
    from compute_orchestrator.testing.orchestrator import Orchestrator

    orchestrator = Orchestrator(**orchestrator_settings)
    orchestrator.start()
    try:
        yield orchestrator
    finally:
        orchestrator.stop()


@pytest.fixture
def worker(worker_app: "Worker", orchestrator: "Orchestrator") -> "Generator[WorkerRunner]":
    """The worker of `worker_app`, attached to `orchestrator`: what it submits goes there too."""
    from compute_orchestrator.testing.workers import WorkerRunner

    with worker_app.attached_to(orchestrator.url, orchestrator.transport):
        yield WorkerRunner(worker_app, orchestrator)


@pytest.fixture
def blocking_orchestrator(
    orchestrator_settings: dict[str, Any],
) -> "Generator[BlockingOrchestrator]":
    """The same for a test that is a plain function."""
    _require_server()
    from compute_orchestrator.testing.blocking import BlockingOrchestrator

    with BlockingOrchestrator(**orchestrator_settings) as orchestrator:
        yield orchestrator


@pytest.fixture
def blocking_worker(
    worker_app: "Worker", blocking_orchestrator: "BlockingOrchestrator"
) -> "Generator[BlockingWorkerRunner]":
    """The same for a test that is a plain function."""
    from compute_orchestrator.testing.workers import BlockingWorkerRunner

    with worker_app.attached_to(blocking_orchestrator.url, blocking_orchestrator.transport):
        yield BlockingWorkerRunner(worker_app, blocking_orchestrator)


def _require_server() -> None:
    from compute_orchestrator.testing.extra import ServerMissing, require_server

    try:
        require_server()
    except ServerMissing as missing:
        pytest.fail(str(missing), pytrace=False)
