"""What a command writes to standard output: tables for people, JSON for programs.

A single thing is one JSON document on one line; of several, each is a line (JSON Lines).
"""

import json
import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Final

import typer

if TYPE_CHECKING:
    from pydantic import BaseModel

    from compute_orchestrator.client.models import Job, Json

AsJson = Annotated[bool, typer.Option("--json", help="For programs: JSON, one document a line.")]

GAP: Final = "  "
NOTHING: Final = "-"
MINUTE: Final = 60

STATUS_COLOURS: Final = {
    "queued": "blue",
    "running": "cyan",
    "succeeded": "green",
    "failed": "red",
    "exhausted": "red",
    "cancelled": "yellow",
}

# A payload or an error may hold escape sequences, and a terminal would obey them.
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def write(line: str) -> None:
    """A line for people, colours and all."""
    typer.echo(line, color=has_colours())


def write_json(value: "BaseModel | Mapping[str, object]") -> None:
    typer.echo(as_json(value))


def as_json(value: "BaseModel | Mapping[str, object]") -> str:
    """What came, field by field, and times as the protocol writes them."""
    plain = value if isinstance(value, Mapping) else value.model_dump(exclude_unset=True)
    takes_all = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    return json.dumps(plain, ensure_ascii=not takes_all, default=_encode)


def write_table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Columns as wide as their widest cell; nothing is cut off, on no terminal."""
    from rich.cells import cell_len

    lines = [heads, *([printable(cell) for cell in row] for row in rows)]
    widths = [max(map(cell_len, column)) for column in zip(*lines, strict=True)]
    for number, line in enumerate(lines):
        cells = (
            _styled(cell, is_head=number == 0) + " " * (width - cell_len(cell))
            for cell, width in zip(line, widths, strict=True)
        )
        write(GAP.join(cells).rstrip())


def write_fields(fields: Mapping[str, str]) -> None:
    """One thing, a line for each field; text of several lines is set below its name."""
    width = max(map(len, fields))
    for name, value in fields.items():
        text = printable(value).rstrip()
        if "\n" in text:
            write(f"{name}\n    " + text.replace("\n", "\n    "))
        else:
            write(f"{name.ljust(width)}{GAP}{_styled(text)}")


def show_moment(moment: datetime | None) -> str:
    """To the second, in UTC."""
    if moment is None:
        return NOTHING
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def show_seconds(seconds: float | None) -> str:
    if seconds is None:
        return NOTHING
    if seconds < MINUTE:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), MINUTE)
    hours, minutes = divmod(minutes, MINUTE)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"


def show_json(value: "Json") -> str:
    return json.dumps(value, ensure_ascii=False)


def show_progress(progress: "Json") -> str:
    """Fraction and message, as the SDK writes them; else whatever the worker sent."""
    match progress:
        case None:
            return NOTHING
        case {"fraction": int() | float() as fraction, **rest}:
            return f"{fraction:.0%} {rest.get('message') or ''}".rstrip()
        case _:
            return show_json(progress)


def show_error(job: "Job") -> str:
    """The error in one line."""
    if not job.error:
        return NOTHING
    kind, message = job.error.get("type"), job.error.get("message")
    words = ": ".join(str(word) for word in (kind, message) if word)
    return words or show_json(job.error)


def printable(text: str) -> str:
    return _CONTROL.sub("�", text)


def has_colours() -> bool:
    """On a terminal, unless it or its user wants none."""
    return (
        sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    )


def _styled(cell: str, *, is_head: bool = False) -> str:
    if not has_colours():
        return cell
    if is_head:
        return typer.style(cell, bold=True)
    return typer.style(cell, fg=STATUS_COLOURS[cell]) if cell in STATUS_COLOURS else cell


def _encode(value: object) -> str:
    if isinstance(value, datetime):
        return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    raise TypeError(f"no JSON: {value!r}")
