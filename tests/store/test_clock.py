"""The store's own clock: it follows the wall clock forwards, and never goes back."""

import asyncio
import time

import pytest

from compute_orchestrator.db.clock import SystemClock, seconds_between
from compute_orchestrator.domain.values import Micros


class Machine:
    """The two clocks of a machine, in microseconds."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.wall = 1_000_000
        self.monotonic = 50
        monkeypatch.setattr(time, "time_ns", lambda: self.wall * 1_000)
        monkeypatch.setattr(time, "monotonic_ns", lambda: self.monotonic * 1_000)

    def pass_time(self, micros: int, *, jump: int = 0) -> None:
        self.monotonic += micros
        self.wall += micros + jump


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(monkeypatch)


def test_it_tells_the_wall_time(machine: Machine) -> None:
    clock = SystemClock()
    assert clock.now() == 1_000_000
    machine.pass_time(5)
    assert clock.now() == 1_000_005


def test_it_follows_a_jump_forwards(machine: Machine) -> None:
    clock = SystemClock()
    machine.pass_time(5, jump=3_600)
    assert clock.now() == 1_003_605


def test_after_a_jump_back_it_goes_on_with_the_time_that_passes(machine: Machine) -> None:
    clock = SystemClock()
    readings = [clock.now()]
    machine.pass_time(5, jump=-3_600)
    readings.append(clock.now())
    for _ in range(3):
        machine.pass_time(7)
        readings.append(clock.now())
    assert readings == [1_000_000, 1_000_005, 1_000_012, 1_000_019, 1_000_026]


def test_when_the_wall_has_caught_up_it_is_the_wall_again(machine: Machine) -> None:
    clock = SystemClock()
    machine.pass_time(5, jump=-3_600)
    clock.now()
    machine.pass_time(0, jump=10_000)
    assert clock.now() == machine.wall


async def test_a_rest_ends_when_it_is_woken_or_over() -> None:
    clock = SystemClock()
    woken = asyncio.Event()
    woken.set()
    await clock.sleep(3_600, until=woken)
    await clock.sleep(0)


def test_a_span_is_told_in_seconds() -> None:
    assert seconds_between(Micros(1_000_000), Micros(3_500_000)) == 2.5
