"""`orc jobs`: look at jobs, cancel them, retry them, wait for their end."""

from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Final

import typer

from compute_orchestrator.cli import output
from compute_orchestrator.cli.connection import (
    LONG_PATIENCE_SECONDS,
    SHORT_PATIENCE_SECONDS,
    Url,
    ask,
)
from compute_orchestrator.cli.exits import FAILED, OK, UNAVAILABLE, complain, ending_of
from compute_orchestrator.cli.output import AsJson
from compute_orchestrator.cli.values import parse_ids, parse_moment

if TYPE_CHECKING:
    from compute_orchestrator.client import JobFilter, OrchestratorClient
    from compute_orchestrator.client.models import Event, Job

jobs_app = typer.Typer(help="Look at jobs, cancel, retry, wait for them.", no_args_is_help=True)

DEFAULT_LIMIT: Final = 50
LARGEST_PAGE: Final = 500
STATUSES: Final = ("queued", "running", "succeeded", "failed", "exhausted", "cancelled")
PARTS: Final = ("payload", "result", "checkpoint")

Words = list[str] | None
JobId = Annotated[int, typer.Argument(metavar="ID", help="The job.", min=0)]
JobIds = Annotated[
    list[str], typer.Argument(metavar="ID", help="The jobs; - reads ids from standard input.")
]
MOMENT: Final = "TIME"


def complete_status(incomplete: str) -> list[str]:
    return [status for status in STATUSES if status.startswith(incomplete)]


def complete_part(incomplete: str) -> list[str]:
    return [part for part in PARTS if part.startswith(incomplete)]


@jobs_app.command("list")
def list_jobs(
    *,
    status: Annotated[
        Words, typer.Option(help="In this status.", autocompletion=complete_status)
    ] = None,
    queue: Annotated[Words, typer.Option(help="In this queue.")] = None,
    name: Annotated[Words, typer.Option(help="With this name.")] = None,
    tag: Annotated[Words, typer.Option(help="With this tag.")] = None,
    worker_id: Annotated[Words, typer.Option(help="Held by this worker.")] = None,
    created_after: Annotated[
        datetime | None,
        typer.Option(parser=parse_moment, metavar=MOMENT, help="Such as 2030-01-31T12:00:00Z."),
    ] = None,
    created_before: Annotated[
        datetime | None, typer.Option(parser=parse_moment, metavar=MOMENT, help="The same.")
    ] = None,
    order: Annotated[str, typer.Option(help="newest or oldest first.")] = "newest",
    include: Annotated[
        Words,
        typer.Option(
            help="For --json: also payload, result or checkpoint.", autocompletion=complete_part
        ),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many at most.")] = DEFAULT_LIMIT,
    everything: Annotated[bool, typer.Option("--all", help="All there are.")] = False,
    ids: Annotated[bool, typer.Option("--ids", help="Only the ids, one a line.")] = False,
    as_json: AsJson = False,
    url: Url = None,
) -> None:
    """List jobs. Filters may be given several times: any of one kind, all kinds together."""
    given = {
        "status": status,
        "queue": queue,
        "name": name,
        "tag": tag,
        "worker_id": worker_id,
        "created_after": created_after,
        "created_before": created_before,
        "order": order,
        "include": include,
    }
    filters: JobFilter = {name: value for name, value in given.items() if value}  # pyright: ignore[reportAssignmentType] - the names stand above

    async def show(client: "OrchestratorClient") -> None:
        found = find(client, filters, None if everything else limit)
        if as_json:
            async for job in found:
                output.write_json(job)
        elif ids:
            async for job in found:
                output.write(str(job.id))
        else:
            write_jobs([job async for job in found])

    ask(url, show)


async def find(
    client: "OrchestratorClient", filters: "JobFilter", limit: int | None
) -> AsyncIterator["Job"]:
    """Up to `limit` of them; None is all."""
    page_size = LARGEST_PAGE if limit is None else min(limit, LARGEST_PAGE)
    found = 0
    async for job in client.iter_jobs(page_size=page_size, **filters):
        yield job
        found += 1
        if found == limit:
            return


def write_jobs(jobs: "list[Job]") -> None:
    heads = ("ID", "STATUS", "NAME", "QUEUE", "ATTEMPT", "CREATED", "FINISHED", "NOTE")
    output.write_table(heads, (row_of(job) for job in jobs))


def row_of(job: "Job") -> tuple[str, ...]:
    words = output.show_error(job) if ended_with_error(job) else output.show_progress(job.progress)
    return (
        str(job.id),
        str(job.status),
        job.name,
        job.queue,
        str(job.attempt),
        output.show_moment(job.created_at),
        output.show_moment(job.finished_at),
        words,
    )


@jobs_app.command("show")
def show_job(job_id: JobId, *, as_json: AsJson = False, url: Url = None) -> None:
    """Show one job whole."""
    job = ask(url, lambda client: client.get(job_id))
    if as_json:
        output.write_json(job)
    else:
        output.write_fields(fields_of(job))


def fields_of(job: "Job") -> dict[str, str]:
    """What there is to say of it; what is empty is left out."""
    run_seconds = {"lease": job.lease_seconds, "timeout": job.timeout_seconds}
    fields = {
        "id": str(job.id),
        "name": job.name,
        "queue": job.queue,
        "status": str(job.status) + (", to be cancelled" if is_marked(job) else ""),
        "priority": str(job.priority),
        "attempt": str(job.attempt),
        "retries": f"{job.retry_count} of {job.max_retries}",
        "tags": ", ".join(job.tags),
        "created": output.show_moment(job.created_at),
        "run at": output.show_moment(job.run_at),
        "finished": output.show_moment(job.finished_at),
        "worker": job.locked_by or "",
        "heartbeat": output.show_moment(job.last_heartbeat_at),
        "lease ends": output.show_moment(job.lease_expires_at),
        **{name: output.show_seconds(s) for name, s in run_seconds.items()},
        "progress": output.show_progress(job.progress),
        "payload": output.show_json(job.payload),
        "checkpoint": output.show_json(job.checkpoint),
        "result": output.show_json(job.result),
        "error": output.show_error(job),
        "traceback": str((job.error or {}).get("traceback") or ""),
    }
    return {name: text for name, text in fields.items() if text not in ("", output.NOTHING, "null")}


@jobs_app.command("events")
def show_events(job_id: JobId, *, as_json: AsJson = False, url: Url = None) -> None:
    """Show a job's audit trail, oldest first."""
    events = ask(url, lambda client: client.events(job_id))
    if as_json:
        for event in events:
            output.write_json(event)
    else:
        write_events(events)


def write_events(events: "list[Event]") -> None:
    heads = ("AT", "ACTION", "FROM", "TO", "ACTOR", "ATTEMPT", "REASON")
    rows = (
        (
            output.show_moment(event.at),
            event.action,
            str(event.from_status or output.NOTHING),
            str(event.to_status or output.NOTHING),
            event.actor or output.NOTHING,
            str(event.attempt),
            event.reason or output.NOTHING,
        )
        for event in events
    )
    output.write_table(heads, rows)


@jobs_app.command("cancel")
def cancel(
    job_ids: JobIds,
    *,
    force: Annotated[
        bool,
        typer.Option("--force", help="End running jobs at once; their workers learn it later."),
    ] = False,
    as_json: AsJson = False,
    url: Url = None,
) -> None:
    """Cancel jobs. A running one is marked, and its worker told."""
    act(url, job_ids, lambda client, job_id: client.cancel(job_id, force=force), as_json=as_json)


@jobs_app.command("retry")
def retry(
    job_ids: JobIds,
    *,
    again: Annotated[
        bool, typer.Option("--again", help="Also jobs that succeeded: they run once more.")
    ] = False,
    as_json: AsJson = False,
    url: Url = None,
) -> None:
    """Put jobs that ended back into their queues, with fresh retries."""
    act(url, job_ids, lambda client, job_id: client.retry(job_id, again=again), as_json=as_json)


@jobs_app.command("wait")
def wait(
    job_ids: JobIds,
    *,
    timeout_seconds: Annotated[
        float | None, typer.Option(min=0, help="For all of them together; else for ever.")
    ] = None,
    as_json: AsJson = False,
    url: Url = None,
) -> None:
    """Wait until jobs have ended. 0 is answered where all of them succeeded.

    Where they end differently, the first that did not succeed decides the exit code.
    """
    act(
        url,
        job_ids,
        Wait(timeout_seconds).wait,
        as_json=as_json,
        code_of=code_of,
        patience_seconds=LONG_PATIENCE_SECONDS,
    )


class Wait:
    """A time that all who are waited for share, one after the other."""

    def __init__(self, timeout_seconds: float | None) -> None:
        self._timeout_seconds = timeout_seconds
        self._over: float | None = None

    async def wait(self, client: "OrchestratorClient", job_id: int) -> "Job":
        """The job once it is final. Raises ResultTimeout."""
        import asyncio

        from compute_orchestrator.client.errors import ResultTimeout
        from compute_orchestrator.client.handle import JobHandle

        loop = asyncio.get_running_loop()
        if self._over is None and self._timeout_seconds is not None:
            self._over = loop.time() + self._timeout_seconds
        handle = JobHandle(client, await client.get(job_id))
        if self._over is None or self._timeout_seconds is None:
            return await handle.wait()
        try:
            return await handle.wait(max(0.0, self._over - loop.time()))
        except ResultTimeout as error:
            raise ResultTimeout(error.job, self._timeout_seconds) from None


def code_of(job: "Job") -> int:
    """The exit code for a job that was waited for."""
    return OK if job.status == "succeeded" else FAILED


def act(
    url: str | None,
    words: list[str],
    do: "Callable[[OrchestratorClient, int], Awaitable[Job]]",
    *,
    as_json: bool,
    code_of: "Callable[[Job], int]" = lambda _: OK,
    patience_seconds: float = SHORT_PATIENCE_SECONDS,
) -> None:
    """Do it with each job in turn and show what became of it. One that can't be done is told and
    keeps none of the others; the first of them is the exit code.
    """
    from compute_orchestrator.client import ClientError

    job_ids = parse_ids(words)

    async def work(client: "OrchestratorClient") -> int:
        codes = [OK]
        for job_id in job_ids:
            try:
                job = await do(client, job_id)
            except ClientError as error:
                ending = ending_of(error)
                if ending.code == UNAVAILABLE:
                    raise
                complain(about_job(job_id, ending.sentence))
                codes.append(ending.code)
                continue
            output.write_json(job) if as_json else output.write(in_words(job))
            codes.append(code_of(job))
        return next(filter(None, codes), OK)

    if code := ask(url, work, patience_seconds=patience_seconds):
        raise typer.Exit(code)


def about_job(job_id: int, sentence: str) -> str:
    """Which of many it was, where the sentence does not say so."""
    return sentence if f"job {job_id}" in sentence else f"job {job_id}: {sentence}"


def in_words(job: "Job") -> str:
    """Where it stands, in a line."""
    verb = "" if job.status in ("succeeded", "failed") else "is "
    said = f"job {job.id} {verb}{job.status}"
    if is_marked(job):
        return f"{said}; its worker will be told to stop"
    return f"{said}: {output.show_error(job)}" if ended_with_error(job) else said


def is_marked(job: "Job") -> bool:
    return job.cancel_requested and not job.is_final


def ended_with_error(job: "Job") -> bool:
    """Whether its error is why it ended. One that was retried keeps its last error."""
    return bool(job.error) and job.status in ("failed", "exhausted")
