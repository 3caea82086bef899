"""For teams that test their workers: a whole server in the test's own process, whose time the test
moves, and a way to call one task without any server.

    async with Orchestrator() as orchestrator:
        job = await orchestrator.submit("resize", {"width": 3}, queue="images")
        await orchestrator.run(app)
        assert (await orchestrator.job(job)).result == ...

What is listed in `__all__` is public and stays. Nothing is imported before it is asked for: the
pytest plugin is loaded by every run of pytest on a machine that has this package.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from compute_orchestrator.testing.blocking import BlockingOrchestrator
    from compute_orchestrator.testing.calling import Outcome, call_task
    from compute_orchestrator.testing.orchestrator import Orchestrator

__all__ = ["BlockingOrchestrator", "Orchestrator", "Outcome", "call_task"]

_HOMES = {
    "BlockingOrchestrator": "blocking",
    "Orchestrator": "orchestrator",
    "Outcome": "calling",
    "call_task": "calling",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name.endswith("Orchestrator"):
        from compute_orchestrator.testing.extra import require_server

        require_server()
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
