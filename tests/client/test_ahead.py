"""How many jobs a worker holds beyond those that run."""

import pytest

from compute_orchestrator.client.ahead import (
    CAUTION_SECONDS,
    LEAST_THIRDS,
    LONGEST_AHEAD_SECONDS,
    MOST_HELD,
    Pace,
)

LONG = 20.0
"""A third of a lease of a minute."""


def paced(
    rate: float, call_seconds: float, *, seconds: float = 5, concurrency: int = 8
) -> tuple[Pace, float]:
    """After so many seconds in which jobs ended at this rate: the pace, and the time."""
    pace = Pace(concurrency, 0)
    now = 0.0
    due = 0.0
    while now < seconds:
        now += call_seconds
        due += rate * call_seconds
        while due >= 1:
            pace.ended()
            due -= 1
        pace.called(call_seconds, now)
    return pace, now


def test_a_worker_that_begins_holds_nothing_ahead() -> None:
    assert Pace(8, 0).ahead(0, LONG) == 0


def test_slow_jobs_are_never_held_ahead() -> None:
    """Eight at a time, a second each."""
    pace, now = paced(rate=8, call_seconds=0.02)
    assert pace.ahead(now, LONG) == 0


def test_quick_jobs_are_held_for_the_time_of_a_call_and_some_more() -> None:
    pace, now = paced(rate=2_000, call_seconds=0.01)
    assert pace.ahead(now, LONG) == pytest.approx(2_000 * 0.01 * 1.5, abs=2)


def test_what_is_held_is_started_soon_however_long_calls_take() -> None:
    pace, now = paced(rate=100, call_seconds=3, seconds=60)
    assert pace.ahead(now, LONG) == pytest.approx(100 * LONGEST_AHEAD_SECONDS, abs=1)


def test_never_more_is_held_than_one_call_can_heartbeat() -> None:
    pace, now = paced(rate=20_000, call_seconds=1, concurrency=300)
    assert pace.ahead(now, LONG) == MOST_HELD - 300
    pace, now = paced(rate=20_000, call_seconds=1, concurrency=2_000)
    assert pace.ahead(now, LONG) == 0


def test_what_is_held_is_worked_off_well_within_a_third_of_the_shortest_lease() -> None:
    pace, now = paced(rate=1_000, call_seconds=0.1)
    assert pace.ahead(now, 0.2) == pytest.approx(1_000 * 0.2 / LEAST_THIRDS, abs=1)


def test_a_worker_whose_jobs_turned_slow_holds_nothing_ahead_for_some_time() -> None:
    pace, now = paced(rate=2_000, call_seconds=0.01)
    pace.slowed(now)
    assert pace.ahead(now, LONG) == 0
    for _ in range(200):
        pace.ended()
        now += 0.0005
    pace.called(0.01, now)
    assert pace.ahead(now, LONG) == 0
    assert pace.ahead(now + CAUTION_SECONDS, LONG) > 0


def test_after_an_idle_time_it_begins_anew() -> None:
    pace, now = paced(rate=2_000, call_seconds=0.01)
    pace.called(0.01, now + 20)
    assert pace.ahead(now + 20, LONG) == 0
