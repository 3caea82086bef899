"""`orc top`: the server live, in the terminal."""

import asyncio
import os
import signal
import sys
from collections.abc import Generator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Annotated, Final

import typer

from compute_orchestrator.cli import output
from compute_orchestrator.cli.connection import Url, ask, open_client, server_url
from compute_orchestrator.cli.output import AsJson

if TYPE_CHECKING:
    from rich.live import Live

    from compute_orchestrator.cli.top_picture import Screen

QUIT: Final = "q"


def top(
    *,
    refresh_seconds: Annotated[
        float, typer.Option(min=0.1, max=3600, help="From one look to the next.")
    ] = 2.0,
    once: Annotated[bool, typer.Option("--once", help="One picture, and no more.")] = False,
    as_json: AsJson = False,
    url: Url = None,
) -> None:
    """Show queues, rates, workers and what ended last, again and again. q or Ctrl-C ends it.

    While the server is away the last picture stays. Without a terminal, with --once and with
    --json it is one picture.
    """
    from compute_orchestrator.cli.top_picture import Screen, look

    if as_json:
        output.write_json(ask(url, look).as_fields())
    elif once or not sys.stdout.isatty():
        show_once(Screen(server_url(url)), url)
    else:
        show_live(Screen(server_url(url)), refresh_seconds)


def show_once(screen: "Screen", url: str | None) -> None:
    from rich.console import Console

    from compute_orchestrator.cli.top_picture import PLAIN_WIDTH, look

    screen.take(ask(url, look))
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = PLAIN_WIDTH
    with console.capture() as drawn:
        console.print(screen.picture())
    for line in drawn.get().splitlines():
        output.write(line.rstrip())


def show_live(screen: "Screen", refresh_seconds: float) -> None:
    """Until q or Ctrl-C, which here is the way out and no failure."""
    from rich.console import Console
    from rich.live import Live

    console = Console(highlight=False)
    with (
        keys_unbuffered(),
        Live(console=console, screen=True, auto_refresh=False) as live,
        suppress(KeyboardInterrupt),
    ):
        asyncio.run(keep_looking(screen, live, refresh_seconds))


async def keep_looking(screen: "Screen", live: "Live", refresh_seconds: float) -> None:
    from compute_orchestrator.cli.top_picture import look
    from compute_orchestrator.client import ClientError

    asked_to_quit = quit_key()
    async with open_client(screen.url, patience_seconds=0) as client:
        while not asked_to_quit.is_set():
            try:
                screen.take(await look(client))
            except ClientError as error:
                screen.miss(error)
            live.update(screen.picture(), refresh=True)
            try:
                async with asyncio.timeout(refresh_seconds):
                    await asked_to_quit.wait()
            except TimeoutError:
                continue


def quit_key() -> asyncio.Event:
    """Set once q was typed, or SIGTERM came."""
    pressed = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, pressed.set)  # the terminal is put in order before
    if sys.stdin.isatty():
        keyboard = sys.stdin.fileno()

        def on_key() -> None:
            typed = os.read(keyboard, 1024)
            if not typed:
                loop.remove_reader(keyboard)
            if QUIT.encode() in typed.lower():
                pressed.set()

        loop.add_reader(keyboard, on_key)
    return pressed


@contextmanager
def keys_unbuffered() -> Generator[None]:
    """Keys come one by one and are not shown; Ctrl-C stays Ctrl-C."""
    if not sys.stdin.isatty():
        yield
        return
    import termios
    import tty

    keyboard = sys.stdin.fileno()
    before = termios.tcgetattr(keyboard)
    tty.setcbreak(keyboard)
    try:
        yield
    finally:
        termios.tcsetattr(keyboard, termios.TCSADRAIN, before)
