"""What a worker tells whoever counts: each method is called when that has happened.

Nothing here does anything; `metrics.py` is the observer that Prometheus reads. All calls come from
the event loop's thread, and must not block it.
"""

from compute_orchestrator.client.models import ClaimedJob


class Observer:
    def claimed(self, jobs: int) -> None:
        """So many came with one answer."""

    def started(self, job: ClaimedJob) -> None:
        """Its task is about to run."""

    def ended(self, job: ClaimedJob, report_status: str, seconds: float) -> None:
        """Its task ran so long, and this is what is reported of it."""

    def lost(self, job: ClaimedJob) -> None:
        """Its lease went to somebody else, or its time was over."""

    def handed_back(self, jobs: int) -> None:
        """So many were released before they were started."""

    def call_failed(self, what: str) -> None:
        """A call to the server got no answer, or one of no use."""

    def holding(self, running: int, waiting: int) -> None:
        """So many leases are held now: of jobs that run, and of jobs that wait to run."""
