"""`orc stats`: what waits and what was done. `orc reap`: the reaper by hand."""

from compute_orchestrator.cli import output
from compute_orchestrator.cli.connection import Url, ask
from compute_orchestrator.cli.output import AsJson


def stats(*, as_json: AsJson = False, url: Url = None) -> None:
    """Show what waits in each queue, and the counts of all jobs there ever were."""
    found = ask(url, lambda client: client.stats())
    if as_json:
        output.write_json(found)
        return
    heads = ("QUEUE", "QUEUED", "DELAYED", "RUNNING", "OLDEST WAITS")
    rows = (
        (
            name,
            *map(str, (queue.queued, queue.delayed, queue.running)),
            output.show_seconds(queue.oldest_queued_seconds),
        )
        for name, queue in found.queues.items()
    )
    output.write_table(heads, rows)
    output.write("")
    minute = found.last_minute
    counts = {name: f"{number:,}" for name, number in found.totals.model_dump().items()}
    last = f"{minute.created:,} created, {minute.finished:,} finished"
    output.write_fields({**counts, "last minute": last})


def reap(*, as_json: AsJson = False, url: Url = None) -> None:
    """Take the jobs of leases that have run out now, as the server does by itself all the time."""
    done = ask(url, lambda client: client.reap())
    if as_json:
        output.write_json(done)
    else:
        counts = (f"{number} {name}" for name, number in done.model_dump().items())
        output.write(", ".join(counts))
