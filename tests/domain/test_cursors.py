"""Cursors come back as they were given, to the listing that gave them, and nowhere else."""

from base64 import urlsafe_b64encode
from contextlib import suppress

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from compute_orchestrator.domain.cursors import decode_cursor, encode_cursor
from compute_orchestrator.domain.errors import ValidationFailed
from compute_orchestrator.domain.values import LARGEST_INTEGER

KINDS = ("newest", "oldest", "events")

kinds = st.sampled_from(KINDS)
ids = st.integers(0, LARGEST_INTEGER)


def handmade(text: str) -> str:
    return urlsafe_b64encode(text.encode()).decode().rstrip("=")


@given(kinds, ids)
def test_a_cursor_goes_round(kind: str, after_id: int) -> None:
    assert decode_cursor(kind, encode_cursor(kind, after_id)) == after_id


@given(kinds, kinds, ids)
def test_a_cursor_of_another_listing_is_refused(kind: str, other: str, after_id: int) -> None:
    assume(kind != other)
    with pytest.raises(ValidationFailed):
        decode_cursor(kind, encode_cursor(other, after_id))


@given(kinds, st.text())
def test_what_was_never_a_cursor_is_refused_or_read_as_an_id(kind: str, text: str) -> None:
    with suppress(ValidationFailed):
        assert 0 <= decode_cursor(kind, text) <= LARGEST_INTEGER


@pytest.mark.parametrize(
    "text",
    [
        "newest",
        "newest:",
        "newest:-1",
        "newest:+1",
        "newest: 1",
        "newest:1_000",
        "newest:0x10",
        "newest:1.0",
        "newest:\N{ARABIC-INDIC DIGIT ONE}",
        "newest:1:2",
        f"newest:{LARGEST_INTEGER + 1}",
        f"newest:{'9' * 19}",
        f"newest:{'9' * 5_000}",
        "NEWEST:1",
        ":1",
        "",
    ],
)
def test_a_handmade_cursor_without_a_plain_64_bit_id_is_refused(text: str) -> None:
    with pytest.raises(ValidationFailed):
        decode_cursor("newest", handmade(text))


@pytest.mark.parametrize("cursor", ["\N{SNOWMAN}", "\ud800", "=", "a", "////", "_w"])
def test_what_is_no_base64_of_text_is_refused(cursor: str) -> None:
    with pytest.raises(ValidationFailed):
        decode_cursor("newest", cursor)
