"""`orc queues`: what waits where; pause and resume."""

from typing import TYPE_CHECKING, Annotated

import typer

from compute_orchestrator.cli import output
from compute_orchestrator.cli.connection import Url, ask
from compute_orchestrator.cli.exits import MISUSED, stop
from compute_orchestrator.cli.output import AsJson

if TYPE_CHECKING:
    from compute_orchestrator.client.models import Queue

queues_app = typer.Typer(help="Show queues, pause and resume them.", invoke_without_command=True)

QueueName = Annotated[str, typer.Argument(metavar="NAME", help="The queue.")]


@queues_app.callback()
def queues(context: typer.Context, *, as_json: AsJson = False, url: Url = None) -> None:
    """Show queues, pause and resume them. Without a command, they are listed."""
    command = context.invoked_subcommand
    if command is None:
        list_queues(as_json=as_json, url=url)
    elif as_json or url is not None:
        stop(f"flags come after the command: orc queues {command} ...", code=MISUSED)


@queues_app.command("list")
def list_queues(*, as_json: AsJson = False, url: Url = None) -> None:
    """Show each queue, and what it holds now."""
    found = ask(url, lambda client: client.queues())
    if as_json:
        for queue in found:
            output.write_json(queue)
    else:
        write_queues(found)


def write_queues(queues: "list[Queue]") -> None:
    heads = ("QUEUE", "QUEUED", "DELAYED", "RUNNING", "PAUSED")
    rows = (
        (
            queue.name,
            *map(str, (queue.queued, queue.delayed, queue.running)),
            "paused" if queue.paused else output.NOTHING,
        )
        for queue in queues
    )
    output.write_table(heads, rows)


@queues_app.command("pause")
def pause(name: QueueName, *, as_json: AsJson = False, url: Url = None) -> None:
    """No claim takes from the queue until it is resumed; what runs goes on."""
    tell(ask(url, lambda client: client.pause_queue(name)), as_json=as_json)


@queues_app.command("resume")
def resume(name: QueueName, *, as_json: AsJson = False, url: Url = None) -> None:
    """Claims take from the queue again."""
    tell(ask(url, lambda client: client.resume_queue(name)), as_json=as_json)


def tell(queue: "Queue", *, as_json: bool) -> None:
    if as_json:
        output.write_json(queue)
    else:
        state = "is paused" if queue.paused else "is open"
        output.write(f"queue {output.printable(queue.name)} {state}, {queue.queued:,} jobs wait")
