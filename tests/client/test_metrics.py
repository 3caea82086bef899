"""What Prometheus reads of a worker."""

import asyncio
import re
import sys

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from compute_orchestrator.client import OrchestratorClient, Permanent, Worker
from compute_orchestrator.client.metrics import Metrics
from tests.client.test_tasks import context
from tests.client.wires import Wire, working
from tests.conftest import URL


async def test_a_workers_metrics_are_on_a_page_while_it_works(
    client: OrchestratorClient, wire: Wire, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    app = Worker(URL, transport=wire, metrics_port=0)

    @app.task("task")
    async def task(fails: bool) -> None:
        if fails:
            raise Permanent("no such user")

    made = [await client.submit("task", {"fails": fails}) for fails in (False, False, True)]
    async with working(app):
        for handle in made:
            await handle.wait(20)
        address = re.findall(r"metrics at (http://127\.0\.0\.1:\d+/metrics)", caplog.text)[0]
        async with httpx.AsyncClient(trust_env=False) as http:
            page = (await http.get(address)).text
    found = {
        (sample.name, *(sample.labels[name] for name in sorted(sample.labels))): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }
    assert found["orc_worker_jobs_claimed_total",] == 3
    assert found["orc_worker_jobs_total", "succeeded", "task"] == 2
    assert found["orc_worker_jobs_total", "failed", "task"] == 1
    assert found["orc_worker_job_seconds_count", "task"] == 3
    with pytest.raises(httpx.ConnectError):
        await asyncio.to_thread(httpx.get, address, trust_env=False)


def test_what_the_engine_tells_is_counted() -> None:
    metrics = Metrics({"50%"})
    known = context().claimed
    unknown = known.model_copy(update={"name": "anything"})
    metrics.ended(known, "queued", 0.2)
    metrics.ended(unknown, "queued", 0.0)
    metrics.lost(known)
    metrics.handed_back(2)
    metrics.call_failed("sync")
    metrics.holding(3, 4)

    def value(name: str, *labels: str) -> float | None:
        names = {"orc_worker_jobs_total": ("task", "outcome")}.get(name, ("task",))
        return metrics.registry.get_sample_value(name, dict(zip(names, labels, strict=False)))

    assert value("orc_worker_jobs_total", "50%", "released") == 1
    assert value("orc_worker_jobs_total", "(unknown)", "released") == 1
    assert value("orc_worker_leases_lost_total", "50%") == 1
    assert value("orc_worker_jobs_handed_back_total") == 2
    assert value("orc_worker_jobs_running") == 3
    assert value("orc_worker_jobs_waiting") == 4
    failed = metrics.registry.get_sample_value("orc_worker_calls_failed_total", {"what": "sync"})
    assert failed == 1


async def test_without_the_package_a_worker_says_what_to_install(
    wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    monkeypatch.delitem(sys.modules, "compute_orchestrator.client.metrics")
    app = Worker(URL, transport=wire, metrics_port=0)
    app.task("task")(lambda: None)
    with pytest.raises(RuntimeError, match=r"compute-orchestrator\[metrics\]"):
        await app.serve()
