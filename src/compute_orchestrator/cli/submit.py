"""`orc submit`: one job from the command line, or many from a file."""

from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from compute_orchestrator.cli import output
from compute_orchestrator.cli.connection import (
    LONG_PATIENCE_SECONDS,
    SHORT_PATIENCE_SECONDS,
    Url,
    ask,
)
from compute_orchestrator.cli.exits import FAILED, MISUSED, complain, stop
from compute_orchestrator.cli.jobs import in_words
from compute_orchestrator.cli.output import AsJson
from compute_orchestrator.cli.values import parse_moment, parse_payload

if TYPE_CHECKING:
    from compute_orchestrator.client import NewJob, OrchestratorClient
    from compute_orchestrator.client.models import Job

MANY: Final = "Many jobs from a file"
RETRY: Final = "Backoff between retries"


def submit(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", show_default=False, help="What to do.")
    ] = None,
    payload: Annotated[
        str | None,
        typer.Argument(
            metavar="PAYLOAD", show_default=False, help="JSON; - reads it from standard input."
        ),
    ] = None,
    *,
    queue: Annotated[str | None, typer.Option(help="The queue; else default.")] = None,
    priority: Annotated[int | None, typer.Option(help="-100 to 100, higher goes first.")] = None,
    max_retries: Annotated[
        int | None, typer.Option(help="How many more runs failures may cause; else 3.")
    ] = None,
    lease_seconds: Annotated[
        float | None, typer.Option(help="How long it is taken for between two heartbeats.")
    ] = None,
    timeout_seconds: Annotated[
        float | None, typer.Option(help="The longest that one attempt may run.")
    ] = None,
    run_at: Annotated[
        datetime | None,
        typer.Option(parser=parse_moment, metavar="TIME", help="Not before this time."),
    ] = None,
    run_in_seconds: Annotated[
        float | None, typer.Option(help="Not before so many seconds from now.")
    ] = None,
    tag: Annotated[
        list[str] | None, typer.Option(help="A word to find it by; may be given several times.")
    ] = None,
    retry_base_seconds: Annotated[
        float | None, typer.Option(help="The first wait; else 1.", rich_help_panel=RETRY)
    ] = None,
    retry_factor: Annotated[
        float | None,
        typer.Option(help="Each wait is longer by it; else 2.", rich_help_panel=RETRY),
    ] = None,
    retry_max_seconds: Annotated[
        float | None,
        typer.Option(help="The longest wait; else 3600.", rich_help_panel=RETRY),
    ] = None,
    retry_jitter: Annotated[
        float | None,
        typer.Option(help="Up to so much longer, at random; else 0.2.", rich_help_panel=RETRY),
    ] = None,
    idempotency_key: Annotated[
        str | None, typer.Option(help="The same key and job again make no second one.")
    ] = None,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait for its end, and show its result.")
    ] = False,
    wait_seconds: Annotated[
        float | None, typer.Option(min=0, help="Wait so long at most; else for ever.")
    ] = None,
    file: Annotated[
        str | None,
        typer.Option(
            metavar="JSONL",
            help="A job a line, as JSON objects; - is standard input.",
            rich_help_panel=MANY,
        ),
    ] = None,
    batch_name: Annotated[
        str | None,
        typer.Option(
            help="What a repeat finds them by; else the file's SHA-256.",
            rich_help_panel=MANY,
        ),
    ] = None,
    as_json: AsJson = False,
    url: Url = None,
) -> None:
    """Create a job, and show its id. With --file, one for each line.

    A line has the fields of the protocol's create, such as
    {"name": "resize", "queue": "images", "payload": {"width": 3}}
    They go in calls of up to 1,000 lines, each all or nothing, each with an
    idempotency key made of the batch's name and the lines before it. So the
    same file may be given again after whatever cut it off: what was made
    is found, and the rest is made.

    The limits: a file that was changed counts as a new one, unless it is
    given the old batch's name. With that, lines that were not made yet may be
    mended; a call that was made and has other lines now, or one more, is
    refused. Where the server forgets old jobs (ORC_RETENTION_SECONDS), it
    forgets their keys with them.
    """
    options = without_none(
        queue=queue,
        priority=priority,
        max_retries=max_retries,
        lease_seconds=lease_seconds,
        timeout_seconds=timeout_seconds,
        run_at=run_at,
        run_in_seconds=run_in_seconds,
        tags=tag,
        retry=without_none(
            base_seconds=retry_base_seconds,
            factor=retry_factor,
            max_seconds=retry_max_seconds,
            jitter=retry_jitter,
        ),
    )
    waits = wait or wait_seconds is not None
    if file is not None:
        if name is not None or options or idempotency_key is not None or waits:
            stop("with --file, the lines say everything of the jobs", code=MISUSED)
        from compute_orchestrator.cli.submit_file import submit_file

        submit_file(file, batch_name, as_json=as_json, url=url)
        return
    if name is None or batch_name is not None:
        stop("give the NAME of a job, or a --file", code=MISUSED)
    from compute_orchestrator.client import NewJob

    job = NewJob(name, None if payload is None else parse_payload(payload), **options)
    submit_one(job, idempotency_key, waits, wait_seconds, as_json=as_json, url=url)


def submit_one(
    job: "NewJob",
    key: str | None,
    waits: bool,
    wait_seconds: float | None,
    *,
    as_json: bool,
    url: str | None,
) -> None:
    from compute_orchestrator.client.errors import ResultTimeout

    async def work(client: "OrchestratorClient") -> "Job":
        handle = await client.submit(job, idempotency_key=key)
        if not waits:
            return handle.job
        complain(in_words(handle.job))
        try:
            return await handle.wait(wait_seconds)
        except ResultTimeout as error:
            if as_json:
                output.write_json(error.job)
            raise

    patience_seconds = LONG_PATIENCE_SECONDS if waits else SHORT_PATIENCE_SECONDS
    made = ask(url, work, patience_seconds=patience_seconds)
    if as_json:
        output.write_json(made)
    elif not waits:
        output.write(str(made.id))
    elif made.status == "succeeded":
        output.write(output.show_json(made.result))
    else:
        complain(in_words(made))
    if waits and made.status != "succeeded":
        raise typer.Exit(FAILED)


def without_none(**fields: object) -> Any:
    """What was given; what was not is the server's to decide."""
    return {name: value for name, value in fields.items() if value is not None and value != {}}
