"""What is typed or piped in, read strictly: JSON, moments, ids."""

import json
import math
import sys
from collections.abc import Iterable
from datetime import datetime
from typing import Any, Final, NoReturn

import typer

STDIN: Final = "-"


def parse_json(text: str | bytes) -> Any:
    """Raises ValueError, also for what Python takes and JSON has not."""
    try:
        return json.loads(text, parse_constant=_refuse, parse_float=_finite)
    except RecursionError:
        raise ValueError("it is nested too deep") from None


def parse_payload(text: str) -> Any:
    """A payload as an argument; `-` is read from standard input."""
    source = sys.stdin.buffer.read() if text == STDIN else text
    try:
        return parse_json(source)
    except ValueError as error:
        raise typer.BadParameter(
            f"the payload is not JSON: {error}. A string needs its quotes: '\"text\"'"
        ) from None


def moment_of(text: str) -> datetime:
    """Raises ValueError, also without an offset: that is another time on another machine."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{text!r} is no time such as 2030-01-31T12:00:00Z") from None
    if moment.tzinfo is None:
        raise ValueError(f"{text!r} has no offset, such as Z for UTC")
    return moment


def parse_moment(text: str) -> datetime:
    """A moment as an argument."""
    try:
        return moment_of(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def parse_ids(words: Iterable[str]) -> list[int]:
    """Job ids as arguments; `-` reads more of them, one or more a line, from standard input."""
    ids: list[int] = []
    for word in words:
        ids += map(_parse_id, sys.stdin.read().split() if word == STDIN else [word])
    return ids


def _parse_id(word: str) -> int:
    if not (word.isascii() and word.isdecimal()):
        raise typer.BadParameter(f"{word!r} is no job id")
    return int(word)


def _finite(text: str) -> float:
    number = float(text)
    return number if math.isfinite(number) else _refuse(text)


def _refuse(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number of JSON")
