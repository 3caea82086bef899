"""Telemetry: logging, as text for people or as JSON for machines. Imported from above."""

import logging
import sys
import time
from typing import Literal

from pythonjsonlogger.json import JsonFormatter

FIELDS = "%(asctime)s %(levelname)s %(name)s %(message)s"


def configure_logging(level: str, form: Literal["text", "json"]) -> None:
    """Send every log line to standard error, in one form."""
    handler = logging.StreamHandler(sys.stderr)
    if form == "json":
        formatter = JsonFormatter(FIELDS, rename_fields={"asctime": "at"})
        formatter.converter = time.gmtime
        formatter.default_time_format = "%Y-%m-%dT%H:%M:%S"
        formatter.default_msec_format = "%s.%03dZ"
        handler.setFormatter(formatter)
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s"))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    logging.getLogger("alembic").setLevel(logging.WARNING)  # it names its dialect at every start
