"""Exchanges of HTTP as a page writes them, and how what is written compares with what comes."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from tests.docs.pages import Block

_MORE = re.compile(r",\s*\.\.\.(?=\s*})")
_TOKEN = re.compile(r"\b[0-9a-f]{32}\b")
_REST = "..."


@dataclass(frozen=True)
class Message:
    """The first line's words, the headers, and the body as text."""

    start: str
    headers: Mapping[str, str]
    body: str


def exchange(block: Block) -> tuple[Message, Message]:
    """The request and the answer of an `http` block."""
    request, answer = re.split(r"^(?=HTTP/1\.1 )", block.text, maxsplit=1, flags=re.MULTILINE)
    return _message(request), _message(answer)


def _message(text: str) -> Message:
    head, _, body = text.strip().partition("\n\n")
    start, *lines = head.splitlines()
    headers = dict(line.split(": ", 1) for line in lines)
    return Message(start, headers, body.strip())


def written(text: str) -> Any:
    """JSON of a page: `, ...` before a closing brace stands for what is left out."""
    return json.loads(_MORE.sub(f', "{_REST}": true', text))


@dataclass
class Tokens:
    """Lease tokens are random: the page's own, and the real ones that they stand for."""

    real: dict[str, str] = field(default_factory=dict)

    def translate(self, text: str) -> str:
        return _TOKEN.sub(lambda found: self.real.get(found[0], found[0]), text)

    def differences(self, wanted: Any, came: Any, where: str = "answer") -> list[str]:
        """Where an answer is not what the page says."""
        if isinstance(wanted, dict) and isinstance(came, dict):
            return self._in_objects(
                cast("dict[str, Any]", wanted), cast("dict[str, Any]", came), where
            )
        if isinstance(wanted, list) and isinstance(came, list):
            return self._in_lists(cast("list[Any]", wanted), cast("list[Any]", came), where)
        if isinstance(wanted, str) and _TOKEN.fullmatch(wanted) and isinstance(came, str):
            wanted = self.real.setdefault(wanted, came)
        if wanted == came and isinstance(wanted, float) == isinstance(came, float):  # 1 is not 1.0
            return []
        return [f"{where}: the page has {wanted!r}, it is {came!r}"]

    def _in_objects(self, wanted: dict[str, Any], came: dict[str, Any], where: str) -> list[str]:
        rest = _REST in wanted
        fields = {name: value for name, value in wanted.items() if name != _REST}
        missing = [f"{where}.{name} is not in it" for name in fields.keys() - came.keys()]
        more: set[str] = set() if rest else came.keys() - fields.keys()
        extra = [f"{where}.{name} is left out, and there is no ..." for name in more]
        return (
            missing
            + extra
            + [
                line
                for name in fields.keys() & came.keys()
                for line in self.differences(fields[name], came[name], f"{where}.{name}")
            ]
        )

    def _in_lists(self, wanted: list[Any], came: list[Any], where: str) -> list[str]:
        if len(wanted) != len(came):
            return [f"{where}: the page has {len(wanted)} items, there are {len(came)}"]
        return [
            line
            for number, (item, other) in enumerate(zip(wanted, came, strict=True))
            for line in self.differences(item, other, f"{where}[{number}]")
        ]
