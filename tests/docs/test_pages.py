"""The pages hang together: links lead somewhere, and files that a page names are there."""

import re
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.docs.pages import DOCS, PAGES, README, ROOT, anchors, blocks, code_words, links, short

SOURCE = ROOT / "src" / "compute_orchestrator"
FILE = re.compile(r"(?:[\w.-]+/)*[\w-]+\.(?:py|md|toml|yml|ini|mako)|Dockerfile|(?:[\w.-]+/)+")


@pytest.mark.parametrize("page", PAGES, ids=short)
def test_links_lead_somewhere(page: Path) -> None:
    dead: list[str] = []
    for link in links(page):
        parts = urlsplit(link)
        if parts.scheme:
            continue
        target = (page.parent / parts.path).resolve() if parts.path else page
        if not target.exists() or (parts.fragment and parts.fragment not in anchors(target)):
            dead.append(link)
    assert dead == []


def made_here(page: Path) -> set[str]:
    """The files that a reader of the page writes."""
    return {title for block in blocks(page) if (title := block.note("title"))}


@pytest.mark.parametrize("page", PAGES, ids=short)
def test_files_that_a_page_names_exist(page: Path) -> None:
    named = {word for word in code_words(page) if FILE.fullmatch(word)} - made_here(page)
    homes = (ROOT, SOURCE, page.parent)
    assert {name for name in named if not any((home / name).exists() for home in homes)} == set()


def test_every_page_can_be_reached_from_the_index() -> None:
    listed = {(DOCS / urlsplit(link).path).resolve() for link in links(DOCS / "index.md")}
    assert {page for page in PAGES if page != DOCS / "index.md"} - listed == set()
    assert "docs/index.md" in links(README)


@pytest.mark.parametrize("page", PAGES, ids=short)
def test_a_page_has_one_title_and_closes_its_blocks(page: Path) -> None:
    text = page.read_text()
    assert text.startswith("# ")
    assert len(re.findall(r"^```", text, re.MULTILINE)) == 2 * len(blocks(page))
    languages = {
        "",
        "http",
        "bash",
        "python",
        "console",
        "json",
        "text",
        "sql",
        "ini",
        "yaml",
        "mermaid",
    }
    assert {block.language for block in blocks(page)} <= languages
