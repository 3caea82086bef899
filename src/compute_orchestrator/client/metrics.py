"""A worker's metrics, where Prometheus finds them: `Worker(metrics_port=9100)`.

Needs the package prometheus_client: `pip install compute-orchestrator[metrics]`.
"""

import logging
from collections.abc import Collection, Generator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server

from compute_orchestrator.client.models import ClaimedJob
from compute_orchestrator.client.observer import Observer

logger = logging.getLogger("compute_orchestrator.worker")

# The status that a report gives the job, in the words of the log.
OUTCOMES = {"queued": "released"}

# Of a name that may be anything: each would be a series of its own.
UNKNOWN = "(unknown)"

SECONDS = (0.005, 0.025, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 7200)


class Metrics(Observer):
    def __init__(self, tasks: Collection[str]) -> None:
        self._tasks = tasks
        self.registry = own = CollectorRegistry()
        self._claimed = Counter("orc_worker_jobs_claimed", "Jobs that claims brought", registry=own)
        self._ended = Counter(
            "orc_worker_jobs", "Jobs by what was reported", ["task", "outcome"], registry=own
        )
        self._seconds = Histogram(
            "orc_worker_job_seconds", "How long tasks ran", ["task"], buckets=SECONDS, registry=own
        )
        self._lost = Counter("orc_worker_leases_lost", "Leases lost", ["task"], registry=own)
        self._handed_back = Counter(
            "orc_worker_jobs_handed_back", "Jobs released before they ran", registry=own
        )
        self._failed_calls = Counter(
            "orc_worker_calls_failed", "Calls without a useful answer", ["what"], registry=own
        )
        self._running = Gauge("orc_worker_jobs_running", "Jobs that run now", registry=own)
        self._waiting = Gauge("orc_worker_jobs_waiting", "Jobs claimed, not begun", registry=own)

    def claimed(self, jobs: int) -> None:
        self._claimed.inc(jobs)

    def ended(self, job: ClaimedJob, report_status: str, seconds: float) -> None:
        task = self._label(job)
        self._ended.labels(task, OUTCOMES.get(report_status, report_status)).inc()
        self._seconds.labels(task).observe(seconds)

    def lost(self, job: ClaimedJob) -> None:
        self._lost.labels(self._label(job)).inc()

    def handed_back(self, jobs: int) -> None:
        self._handed_back.inc(jobs)

    def call_failed(self, what: str) -> None:
        self._failed_calls.labels(what).inc()

    def holding(self, running: int, waiting: int) -> None:
        self._running.set(running)
        self._waiting.set(waiting)

    def _label(self, job: ClaimedJob) -> str:
        return job.name if job.name in self._tasks else UNKNOWN


@contextmanager
def observed(tasks: Collection[str], port: int, host: str) -> Generator[Metrics]:
    """Metrics, and their page `/metrics` by an HTTP server in a thread of its own."""
    metrics = Metrics(tasks)
    server, thread = start_http_server(port, host, metrics.registry)
    logger.info("metrics at http://%s:%d/metrics", host, server.server_port)
    try:
        yield metrics
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
