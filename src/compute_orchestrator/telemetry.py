"""Telemetry: logging, as text for people or as JSON for machines. Imported from above."""

import logging
import sys
from typing import Literal

from pythonjsonlogger.json import JsonFormatter

FIELDS = "%(asctime)s %(levelname)s %(name)s %(message)s"


def configure_logging(level: str, form: Literal["text", "json"]) -> None:
    """Send every log line to standard error, in one form."""
    handler = logging.StreamHandler(sys.stderr)
    if form == "json":
        handler.setFormatter(JsonFormatter(FIELDS, rename_fields={"asctime": "at"}))
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s"))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
