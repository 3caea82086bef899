"""An outage: few lines however long it lasts, and none hides another cause."""

import logging

import pytest

from compute_orchestrator.services import outage
from compute_orchestrator.services.outage import AGAIN_SECONDS, Outage


class Time:
    """Stands still until the test moves it."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    time = Time()
    monkeypatch.setattr(outage, "time", time)
    return time


@pytest.fixture
def away(caplog: pytest.LogCaptureFixture) -> Outage:
    caplog.set_level(logging.INFO)
    return Outage(logging.getLogger(__name__), begins="away", ends="back")


def test_the_same_cause_is_told_once_a_minute(
    time: Time, away: Outage, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(3 * int(AGAIN_SECONDS)):
        away.came("refused")
        time.now += 1
    assert caplog.messages == ["away: refused"] * 3


def test_another_cause_is_told_at_once_and_other_numbers_are_no_other_cause(
    time: Time, away: Outage, caplog: pytest.LogCaptureFixture
) -> None:
    for cause in ("process 12 is gone", "process 3 is gone", "starting", "process 4 is gone"):
        away.came(cause)
        time.now += 1
    assert caplog.messages == ["away: process 12 is gone", "away: starting"]


def test_its_end_is_told_once_and_only_after_its_beginning(
    time: Time, away: Outage, caplog: pytest.LogCaptureFixture
) -> None:
    away.is_over()
    assert caplog.messages == []
    away.came("refused")
    away.is_over()
    away.is_over()
    assert caplog.messages == ["away: refused", "back"]
    # What comes and goes many times a minute is as quiet.
    for _ in range(10):
        away.came("refused")
        away.is_over()
    assert caplog.messages == ["away: refused", "back"]
    time.now += AGAIN_SECONDS
    away.came("refused")
    away.is_over()
    assert caplog.messages == ["away: refused", "back"] * 2
