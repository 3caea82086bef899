"""A reader who does what the pages say, block by block, sees what they say."""

import shutil
from pathlib import Path

import pytest

from tests.docs.pages import DOCS, PAGES, README, blocks
from tests.docs.walk import GOES_ON, Walk

COMMAND = DOCS / "cli.md"
"""It shows ids and counts, so its reader has a server of her own."""

WALKS = [
    page
    for page in PAGES
    if page != COMMAND
    and any(block.language == "console" and GOES_ON.search(block.text) for block in blocks(page))
]


def test_the_pages_to_be_walked_are_found() -> None:
    assert {README, DOCS / "operations.md", DOCS / "client.md"} <= set(WALKS)


def test_what_is_marked_as_runnable_is_on_a_page_that_is_walked() -> None:
    runnable = {
        page
        for page in PAGES
        if any(block.language in ("bash", "python") for block in blocks(page))
    }
    # The guide to testing is a project of its own: tests/testing/test_guide.py runs it.
    assert runnable - {DOCS / "testing.md", COMMAND} <= set(WALKS)


@pytest.mark.process
@pytest.mark.slow  # two dozen Python processes, one after the other
@pytest.mark.timeout(400)
@pytest.mark.skipif(shutil.which("curl") is None, reason="the pages call the server with curl")
def test_the_pages_can_be_followed(tmp_path: Path) -> None:
    with Walk(tmp_path) as walk:
        for page in WALKS:  # the README first: one reader, one server, page after page
            walk.page(page)


@pytest.mark.process
@pytest.mark.slow  # three dozen Python processes, one after the other
@pytest.mark.timeout(400)
def test_the_page_of_the_command_can_be_followed(tmp_path: Path) -> None:
    with Walk(tmp_path) as walk:
        walk.page(COMMAND)
