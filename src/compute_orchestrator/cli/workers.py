"""`orc workers`: who was seen in the last day."""

from typing import TYPE_CHECKING

from compute_orchestrator.cli import output
from compute_orchestrator.cli.connection import Url, ask
from compute_orchestrator.cli.output import AsJson

if TYPE_CHECKING:
    from compute_orchestrator.client.models import WorkerSeen


def workers(*, as_json: AsJson = False, url: Url = None) -> None:
    """Show the workers of the last day, and how many jobs each runs."""
    found = ask(url, lambda client: client.workers())
    if as_json:
        for worker in found:
            output.write_json(worker)
    else:
        write_workers(found)


def write_workers(workers: "list[WorkerSeen]") -> None:
    heads = ("WORKER", "RUNNING", "LAST SEEN", "ABOUT")
    rows = (
        (
            worker.worker_id,
            str(worker.running),
            output.show_moment(worker.last_seen_at),
            show_about(worker),
        )
        for worker in workers
    )
    output.write_table(heads, rows)


def show_about(worker: "WorkerSeen") -> str:
    """What it says of itself: host, process, versions."""
    said = (f"{name} {value}" for name, value in (worker.about or {}).items() if value is not None)
    return ", ".join(said) or output.NOTHING
