"""The log of a worker's process: one line an event, on standard error."""

import logging
import sys
from typing import Literal

LogLevel = Literal["debug", "info", "warning", "error"]

FORMAT = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"

# They write a line for each call.
LIBRARIES = ("httpx", "httpcore")


def log_to_stderr(level: LogLevel) -> None:
    """Show every logger's lines, unless the program has set up a handler of its own."""
    if logging.getLogger("compute_orchestrator").hasHandlers():
        return
    logging.basicConfig(stream=sys.stderr, level=level.upper(), format=FORMAT)
    for name in LIBRARIES:
        logging.getLogger(name).setLevel(logging.WARNING)
