"""Stats on the wire."""

from compute_orchestrator.schemas.values import Output, ShownMoment


class QueueStatsOutput(Output):
    queued: int
    delayed: int
    running: int
    oldest_queued_seconds: float | None


class TotalsOutput(Output):
    """Since the store was made."""

    created: int
    succeeded: int
    failed: int
    exhausted: int
    cancelled: int
    retried: int
    lost: int


class LastMinuteOutput(Output):
    created: int
    finished: int


class StatsOutput(Output):
    now: ShownMoment
    queues: dict[str, QueueStatsOutput]
    totals: TotalsOutput
    last_minute: LastMinuteOutput
