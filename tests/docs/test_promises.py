"""The page of the promises and their tests know each other."""

import re

import pytest

from tests.docs.pages import DOCS, README, ROOT, links, prose, short

PROMISES = DOCS / "promises.md"
NUMBERS = range(1, 11)

SECTIONS = {
    int(number): (title, text)
    for number, title, text in re.findall(
        r"^## (\d+)\. ([^\n]+)\n(.*?)(?=^## |\Z)", prose(PROMISES), re.MULTILINE | re.DOTALL
    )
}


def test_there_are_ten_promises() -> None:
    assert list(SECTIONS) == list(NUMBERS)


@pytest.mark.parametrize("number", NUMBERS)
def test_a_promise_says_how_it_is_held_and_where_it_ends(number: int) -> None:
    _, text = SECTIONS[number]
    assert text.strip().startswith("**")
    for word in ("Held by: ", "Tests: ", "Ends where: "):
        assert f"\n\n{word}" in text


@pytest.mark.parametrize("number", NUMBERS)
def test_a_promise_names_its_tests(number: int) -> None:
    _, text = SECTIONS[number]
    named = set(re.findall(r"\(\.\./(tests/promises/[^)]+)\)", text))
    assert named == {short(test) for test in ROOT.glob(f"tests/promises/test_{number:02}_*.py")}
    assert named


def test_the_readme_lists_every_promise() -> None:
    titles = {f"{number}-{_slug(title)}" for number, (title, _) in SECTIONS.items()}
    listed = {link.partition("#")[2] for link in links(README) if "promises.md#" in link}
    assert listed == titles


def _slug(title: str) -> str:
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
