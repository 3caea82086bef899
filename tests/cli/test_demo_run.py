"""What the demo says of the job whose worker it killed."""

import io
from typing import Any

import httpx
import pytest
from rich.console import Console

from compute_orchestrator.cli.demo_run import follow
from compute_orchestrator.cli.demo_view import View
from compute_orchestrator.client import OrchestratorClient
from compute_orchestrator.client.models import Job

JOB: dict[str, Any] = {"id": 7, "queue": "q", "name": "n", "payload": {"path": "ast.py"}}
HELD = {**JOB, "status": "running", "locked_by": "worker-1", "attempt": 1}
BACK = {**JOB, "status": "queued", "locked_by": None, "attempt": 1}
TAKEN = {**JOB, "status": "running", "locked_by": "worker-2", "attempt": 2}
DONE = {**TAKEN, "status": "succeeded"}

LINES = {
    "back": "requeued: job 7 (ast.py); back in its queue, behind those that wait",
    "taken": "recovered: job 7 (ast.py); worker-2 has it, attempt 2",
    "done": "done: job 7 (ast.py); succeeded by worker-2",
}


@pytest.mark.parametrize(
    ("looks", "said"),
    [
        ([HELD, BACK, BACK, TAKEN, TAKEN, DONE], ["back", "taken", "done"]),
        ([HELD, TAKEN, DONE], ["taken", "done"]),
        ([BACK, DONE], ["back", "taken", "done"]),
    ],
)
async def test_each_station_of_the_job_is_said_once(
    looks: list[dict[str, Any]], said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("compute_orchestrator.cli.demo_run.LOOK_SECONDS", 0)
    left = iter(looks)
    transport = httpx.MockTransport(lambda _: httpx.Response(200, json=next(left)))
    file = io.StringIO()
    async with OrchestratorClient("http://127.0.0.1:1", transport=transport) as client:
        await follow(client, View(Console(file=file, width=200)), Job.model_validate(HELD))
    assert file.getvalue().splitlines() == [LINES[line] for line in said]
