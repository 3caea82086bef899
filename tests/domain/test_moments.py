"""Moments on the wire: any RFC 3339 time with an offset comes in, UTC with six digits goes out."""

import re
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compute_orchestrator.domain.values import Micros
from compute_orchestrator.schemas.values import format_moment, parse_moment, shown_moment

FIRST = 0
LAST = 253_402_300_799_999_999  # 9999-12-31T23:59:59.999999Z

moments = st.integers(FIRST, LAST).map(Micros)
offsets = st.integers(-23 * 60 - 59, 23 * 60 + 59).map(lambda m: timezone(timedelta(minutes=m)))


@given(moments)
def test_a_moment_goes_round(moment: Micros) -> None:
    assert parse_moment(format_moment(moment)) == moment


@given(moments)
def test_a_moment_is_written_in_one_shape(moment: Micros) -> None:
    shape = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z"
    assert re.fullmatch(shape, format_moment(moment), re.ASCII)


@given(moments, moments)
def test_moments_compare_as_text(one: Micros, other: Micros) -> None:
    assert (one < other) == (format_moment(one) < format_moment(other))


@given(st.datetimes(datetime(1970, 1, 3), datetime(9999, 12, 29)), offsets)  # noqa: DTZ001 - zoned
def test_any_offset_names_the_same_moment(local: datetime, offset: timezone) -> None:
    there = local.replace(tzinfo=offset)
    here = there.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    assert format_moment(parse_moment(there.isoformat())) == here


@pytest.mark.parametrize(
    ("text", "micros"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("1969-12-31T23:59:59.999999Z", -1),
        ("1969-12-31T23:59:60Z", 0),
        ("1970-01-01T00:00:00.000001Z", 1),
        ("1970-01-01T00:00:01.5Z", 1_500_000),
        ("1970-01-01t00:00:01z", 1_000_000),
        ("1970-01-01T00:00:00-00:00", 0),
        ("1970-01-01T01:00:00+01:00", 0),
        ("1969-12-31T23:00:00-01:00", 0),
        ("1970-01-01T00:00:00.0000019Z", 1),
        ("2000-02-29T12:00:00Z", 951_825_600_000_000),
        ("9999-12-31T23:59:59.999999Z", LAST),
    ],
)
def test_a_time_is_read_as_it_is_meant(text: str, micros: int) -> None:
    assert parse_moment(text) == micros


@pytest.mark.parametrize(
    "text",
    [
        "2026-11-23T21:45:47",
        "2026-11-23",
        "2026-11-23 21:45:47Z",
        "2026-11-23T21:45Z",
        "2026-11-23T21:45:47,5Z",
        "2026-11-23T21:45:47.Z",
        "2026-11-23T21:45:47+0100",
        "2026-11-23T21:45:47+01",
        "2026-11-23T21:45:47+24:00",
        "2026-11-23T24:00:00Z",
        "2026-02-29T00:00:00Z",
        "2026-13-01T00:00:00Z",
        "0000-01-01T00:00:00Z",
        "0001-01-01T00:00:00+23:59",
        "9999-12-31T23:59:59-23:59",
        "12026-11-23T21:45:47Z",
        "2026-11-23T21:45:47Z\n",
        " 2026-11-23T21:45:47Z",
        "\N{FULLWIDTH DIGIT TWO}026-11-23T21:45:47Z",
        "20261123T214547Z",
        "2026-W48-1T00:00:00Z",
        "",
        0,
        1_795_000_000,
        1.5,
        True,
        None,
    ],
)
def test_a_time_that_is_none_or_has_no_offset_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match=r"RFC 3339|no time that exists|years 1 and 9999"):
        parse_moment(text)


def test_a_missing_moment_is_shown_as_null() -> None:
    assert shown_moment(None) is None
    assert shown_moment(Micros(0)) == "1970-01-01T00:00:00.000000Z"
