"""What passes between the bench and its load generator: a plan goes in, a measurement comes out."""

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict


class MeasurementFailed(Exception):
    """A server did not start, or answered badly or not at all: such a run gives no figure."""


class Plan(BaseModel):
    """One measurement. It ends after `seconds`, or earlier when `limit` conversations are over.

    Connections are dealt out to `ports` in turn. No more than `rate` conversations begin in a
    second.
    """

    model_config = ConfigDict(frozen=True)

    ports: tuple[int, ...]
    conversation: str
    connections: int
    seconds: float
    warmup_seconds: float = 0
    limit: int | None = None
    rate: float | None = None
    server_pids: tuple[int, ...]


class Latency(BaseModel):
    """Of one step, or of all, in milliseconds."""

    count: int
    p50: float
    p95: float
    p99: float
    max: float


class Measurement(BaseModel):
    """What happened between the end of the warm-up and the end of the time."""

    seconds: float
    requests: int
    conversations: int
    # By step; "all" pools them.
    latency: dict[str, Latency]
    # "step: what happened" -> how often, over the whole run, warm-up included.
    failures: dict[str, int]
    # The body of the first bad answer.
    first_failure: str = ""
    server_cpu_seconds: float
    generator_cpu_seconds: float

    @property
    def requests_per_second(self) -> float:
        return self.requests / self.seconds

    @property
    def conversations_per_second(self) -> float:
        return self.conversations / self.seconds

    @property
    def server_cpu_us(self) -> float:
        return self.server_cpu_seconds / self.requests * 1e6

    @property
    def generator_busy(self) -> float:
        return self.generator_cpu_seconds / self.seconds


def latency_of(nanoseconds: Sequence[int]) -> Latency:
    """Percentiles by nearest rank: each is a latency that some request really had."""
    ordered = sorted(nanoseconds)

    def rank(percent: int) -> float:
        return ordered[max(0, -(-len(ordered) * percent // 100) - 1)] / 1e6

    return Latency(
        count=len(ordered), p50=rank(50), p95=rank(95), p99=rank(99), max=ordered[-1] / 1e6
    )
