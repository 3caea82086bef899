"""The pages that these tests hold true: their headings, links, tables, names and fenced blocks.

A fenced block is marked by its first word:

http     a request and its answer, replayed in order against one server per page; `after=20` moves
         the server's clock first
bash     run by bash, in the page's own folder
python   run by Python; with `title="x.py"` written there as a file instead
console  commands that go on (`orc serve`, `orc worker`) are started, others are checked
json     after a bash block: what it printed
text     after a bash or python block: what it printed, or with `like` what looks like it; else a
         picture
sql      for a database, in test_postgresql.py
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
README = ROOT / "README.md"
PROTOCOL = DOCS / "protocol.md"
PAGES = [README, *sorted(DOCS.glob("*.md"))]

_FENCE = re.compile(r"^```(\w*)([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
_LINK = re.compile(r"(?<!!)\[[^\]]+\]\(([^)\s]+)\)")
_CODE = re.compile(r"`([^`\n]+)`")


@dataclass(frozen=True)
class Block:
    """One fenced block: its language, what else its first line says, and its text."""

    language: str
    notes: str
    text: str
    line: int

    def note(self, name: str) -> str | None:
        """The value of `name=...` on the first line."""
        found = re.search(rf'\b{name}="?([^"\s]+)', self.notes)
        return found[1] if found else None


def short(page: Path) -> str:
    """A page as one says it: from the root of the tree."""
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page, in order."""
    text = page.read_text()
    return [
        Block(found[1], found[2].strip(), found[3], text.count("\n", 0, found.start()) + 1)
        for found in _FENCE.finditer(text)
    ]


def prose(page: Path) -> str:
    """A page without its fenced blocks."""
    return _FENCE.sub("", page.read_text())


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    return {
        re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        for heading in _HEADING.findall(prose(page))
    }


def links(page: Path) -> list[str]:
    """Where a page points to."""
    return _LINK.findall(prose(page))


def code_words(page: Path) -> set[str]:
    """What a page's text sets in code style."""
    return set(_CODE.findall(prose(page)))


def code_parts(page: Path) -> set[str]:
    """The same, word by word."""
    return {part for words in code_words(page) for part in words.split()}


def tables(page: Path, heading: str) -> Iterator[list[str]]:
    """The rows of the tables under a heading, without their heads; code style is taken off."""
    section = re.search(
        rf"^#+ {re.escape(heading)}\n(.*?)(?=^#+ |\Z)", prose(page), re.MULTILINE | re.DOTALL
    )
    assert section, f"{short(page)} has no heading {heading!r}"
    lines = section[1].splitlines()
    for before, line in zip(["", *lines], lines, strict=False):
        is_row = line.startswith("|") and not line.startswith("|---")
        is_head = is_row and not before.startswith("|")
        if is_row and not is_head:
            yield [
                cell.strip().replace("`", "").replace("\\|", "|")
                for cell in re.split(r"(?<!\\)\|", line)[1:-1]
            ]
