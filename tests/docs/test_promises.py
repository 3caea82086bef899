"""The page of the promises and their tests know each other."""

import re

import pytest

from tests.docs.pages import DOCS, README, ROOT, code_words, links, prose, short

PROMISES = DOCS / "promises.md"
NUMBERS = range(1, 11)
TESTS = sorted((ROOT / "tests" / "promises").glob("test_[0-9][0-9]_*.py"))

SECTIONS = {
    int(number): (title, text)
    for number, title, text in re.findall(
        r"^## (\d+)\. ([^\n]+)\n(.*?)(?=^## |\Z)", prose(PROMISES), re.MULTILINE | re.DOTALL
    )
}


def test_there_are_ten_promises() -> None:
    assert list(SECTIONS) == list(NUMBERS)


@pytest.mark.parametrize("number", NUMBERS)
def test_a_promise_says_how_it_is_held_tested_and_where_it_ends(number: int) -> None:
    _, text = SECTIONS[number]
    assert text.strip().startswith("**")
    for word in ("Held by: ", "Test: ", "Ends where: "):
        assert f"\n\n{word}" in text
    named = set(re.findall(r"`(tests/promises/[^`]+)`", text))
    assert named == {short(test) for test in TESTS if int(test.name[5:7]) == number}
    assert named


def test_every_test_of_a_promise_is_named() -> None:
    assert {short(test) for test in TESTS} - code_words(PROMISES) == set()


def test_the_readme_lists_every_promise() -> None:
    titles = {f"{number}-{_slug(title)}" for number, (title, _) in SECTIONS.items()}
    listed = {link.partition("#")[2] for link in links(README) if "promises.md#" in link}
    assert listed == titles


def _slug(title: str) -> str:
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
