"""Stats on the wire."""

from pydantic import ConfigDict

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
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "now": "2026-11-23T21:45:47.000000Z",
                    "queues": {
                        "images": {
                            "queued": 12,
                            "delayed": 3,
                            "running": 4,
                            "oldest_queued_seconds": 1.5,
                        }
                    },
                    "totals": {
                        "created": 100,
                        "succeeded": 78,
                        "failed": 1,
                        "exhausted": 1,
                        "cancelled": 1,
                        "retried": 6,
                        "lost": 2,
                    },
                    "last_minute": {"created": 20, "finished": 18},
                }
            ]
        }
    )

    now: ShownMoment
    queues: dict[str, QueueStatsOutput]
    totals: TotalsOutput
    last_minute: LastMinuteOutput
