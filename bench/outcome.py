"""What a scenario gives back: series of measurements by subject, and figures out of them."""

from collections.abc import Callable

from pydantic import BaseModel

from bench.machine import Machine
from bench.measurement import Measurement


class Series(BaseModel):
    """One subject's measurements of one thing, one a round."""

    subject: str
    durability: str
    what: str
    # Whose latencies are shown; "all" pools the steps and their rate is shown too.
    step: str = "all"
    connections: int
    rounds: list[Measurement]

    def only(self, step: str) -> "Series":
        """The same measurements, seen by one step."""
        return self.model_copy(update={"what": step, "step": step})


class Figure(BaseModel):
    """One number a round."""

    what: str
    rounds: list[float]


class Outcome(BaseModel):
    scenario: str
    series: list[Series]
    figures: list[Figure]


class Report(BaseModel):
    """A whole run, as `--json` writes it."""

    machine: Machine
    rounds: int
    seconds: float
    outcomes: list[Outcome]


def compare(
    what: str, one: Series, other: Series, figure: Callable[[Measurement], float]
) -> Figure:
    """Two series, round by round: neighbours in time, so the machine's moods cancel."""
    pairs = zip(one.rounds, other.rounds, strict=True)
    return Figure(what=what, rounds=[figure(left) / figure(right) for left, right in pairs])


def jobs_a_second(series: Series) -> Figure:
    """Where each conversation is a job's."""
    return Figure(
        what=f"jobs a second, {series.what}, {series.subject}",
        rounds=[measured.conversations_per_second for measured in series.rounds],
    )
