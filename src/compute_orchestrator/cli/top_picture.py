"""What `orc top` looks at, and how it is drawn."""

import time
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from compute_orchestrator.cli import output
from compute_orchestrator.cli.exits import ending_of
from compute_orchestrator.cli.jobs import ended_with_error
from compute_orchestrator.cli.workers import show_about
from compute_orchestrator.client import ClientError, OrchestratorClient
from compute_orchestrator.client.calls import without_secrets
from compute_orchestrator.client.models import FINAL, Job, Queue, Stats, WorkerSeen

LOOKED_THROUGH: Final = 100
"""Jobs are listed by their creation: those that ended last are looked for among so many."""

SHOWN_ENDS: Final = 10
SHOWN_WORKERS: Final = 15
MINUTE: Final = 60
PLAIN_WIDTH: Final = 160
"""Where there is no terminal to fit into."""


@dataclass(frozen=True, slots=True)
class Look:
    """What the server said at one moment."""

    stats: Stats
    queues: list[Queue]
    workers: list[WorkerSeen]
    ended: list[Job]

    def as_fields(self) -> dict[str, object]:
        return {
            "stats": self.stats.model_dump(exclude_unset=True),
            "queues": [queue.model_dump(exclude_unset=True) for queue in self.queues],
            "workers": [worker.model_dump(exclude_unset=True) for worker in self.workers],
            "ended": [job.model_dump(exclude_unset=True) for job in self.ended],
        }


async def look(client: OrchestratorClient) -> Look:
    stats = await client.stats()
    queues = await client.queues()
    workers = await client.workers()
    page = await client.list_jobs(limit=LOOKED_THROUGH, status=sorted(FINAL), order="newest")
    ended = [job for job in page.jobs if job.finished_at is not None]
    ended.sort(key=lambda job: job.finished_at or stats.now, reverse=True)
    return Look(stats, queues, workers, ended[:SHOWN_ENDS])


class Screen:
    """The last looks, and the trouble since, if any."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._shown_url = without_secrets(url)
        self._last: Look | None = None
        self._before: Look | None = None
        self._trouble: str | None = None
        self._away_since = 0.0

    def take(self, look: Look) -> None:
        self._before, self._last = self._last, look
        self._trouble = None

    def miss(self, error: ClientError) -> None:
        if self._trouble is None:
            self._away_since = time.monotonic()
        self._trouble = ending_of(error).sentence

    def picture(self) -> RenderableType:
        parts: list[RenderableType] = [self._head()]
        if self._trouble is not None:
            away = output.show_seconds(time.monotonic() - self._away_since)
            parts.append(Text(f"no news for {away}: {self._trouble}", style="bold red"))
        if (last := self._last) is not None:
            now = last.stats.now
            parts += [self._rates(last), queues_table(last), workers_table(last, now)]
            parts.append(ends_table(last, now))
        return Group(*parts)

    def _head(self) -> Text:
        now = output.show_moment(self._last and self._last.stats.now)
        return Text.assemble(("orc top", "bold"), f"  {self._shown_url}  {now}")

    def _rates(self, last: Look) -> Text:
        """Between the last two looks; at first, those of the last minute."""
        minute, totals = last.stats.last_minute, last.stats.totals
        created, finished = minute.created / MINUTE, minute.finished / MINUTE
        span = "last minute"
        if self._before is not None:
            before = self._before.stats
            seconds = (last.stats.now - before.now).total_seconds()
            if seconds > 0:
                created = (totals.created - before.totals.created) / seconds
                finished = (ends(last.stats) - ends(before)) / seconds
                span = f"last {seconds:.1f} s"
        counts = ", ".join(f"{number:,} {name}" for name, number in totals.model_dump().items())
        rates = f"{created:,.1f} created/s, {finished:,.1f} finished/s"
        return Text(f"{rates} ({span}); in all {counts}")


def ends(stats: Stats) -> int:
    totals = stats.totals
    return totals.succeeded + totals.failed + totals.exhausted + totals.cancelled


def queues_table(look: Look) -> Table:
    table = new_table("QUEUE", "QUEUED>", "DELAYED>", "RUNNING>", "OLDEST WAITS>", "")
    for queue in look.queues:
        waiting = look.stats.queues.get(queue.name)
        oldest = output.show_seconds(waiting and waiting.oldest_queued_seconds)
        counts = (f"{number:,}" for number in (queue.queued, queue.delayed, queue.running))
        paused = Text("paused", style="yellow") if queue.paused else ""
        table.add_row(cell(queue.name), *counts, oldest, paused)
    return table


def workers_table(look: Look, now: datetime) -> Table:
    """The busy ones first, then those who were seen last."""
    table = new_table("WORKER", "RUNNING>", "SEEN>", "ABOUT")
    ranked = sorted(look.workers, key=lambda one: (-one.running, now - one.last_seen_at))
    for worker in ranked[:SHOWN_WORKERS]:
        seen = ago(worker.last_seen_at, now)
        table.add_row(cell(worker.worker_id), f"{worker.running:,}", seen, cell(show_about(worker)))
    if (more := len(ranked) - SHOWN_WORKERS) > 0:
        table.add_row(f"and {more:,} more", "", "", "")
    return table


def ends_table(look: Look, now: datetime) -> Table:
    table = new_table("ENDED", "STATUS", "NAME", "QUEUE", "ATTEMPT>", "AGO>", "")
    for job in look.ended:
        status = Text(str(job.status), style=output.STATUS_COLOURS.get(job.status, ""))
        words = output.show_error(job) if ended_with_error(job) else ""
        table.add_row(
            str(job.id),
            status,
            cell(job.name),
            cell(job.queue),
            str(job.attempt),
            ago(job.finished_at or now, now),
            cell(words),
        )
    return table


def new_table(*heads: str) -> Table:
    """No lines but its own; a head that ends in > stands to the right."""
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for head in heads:
        justify = "right" if head.endswith(">") else "left"
        table.add_column(head.rstrip(">"), justify=justify, no_wrap=True, overflow="ellipsis")
    return table


def cell(text: str) -> Text:
    """What a user wrote is no markup, and obeys no terminal."""
    return Text(output.printable(text).replace("\n", " "))


def ago(moment: datetime, now: datetime) -> str:
    return output.show_seconds(max(0.0, (now - moment).total_seconds()))
