"""The client's models and the server's OpenAPI document say the same."""

from typing import Any

from compute_orchestrator.client import models
from compute_orchestrator.client.models import Status
from compute_orchestrator.domain import lifecycle
from compute_orchestrator.main import create_app
from compute_orchestrator.settings import Settings

PAIRS = [
    (models.Job, "JobOutput"),
    (models.ClaimedJob, "ClaimOutput"),
    (models.RetryPolicy, "RetryOutput"),
    (models.JobPage, "JobListOutput"),
    (models.JobList, "BulkOutput"),
    (models.Event, "EventOutput"),
    (models.EventPage, "EventListOutput"),
    (models.LeaseState, "HeartbeatOutput"),
    (models.SyncAnswer, "SyncOutput"),
    (models.ReportAnswer, "ReportItemOutput"),
    (models.BeatAnswer, "HeartbeatItemOutput"),
    (models.Reaped, "ReapOutput"),
    (models.Queue, "QueueOutput"),
    (models.QueueList, "QueueListOutput"),
    (models.WorkerSeen, "WorkerOutput"),
    (models.WorkerList, "WorkerListOutput"),
    (models.QueueStats, "QueueStatsOutput"),
    (models.Totals, "TotalsOutput"),
    (models.LastMinute, "LastMinuteOutput"),
    (models.Stats, "StatsOutput"),
]


def test_every_model_has_the_fields_of_the_document(settings: Settings) -> None:
    schemas: dict[str, Any] = create_app(settings).openapi()["components"]["schemas"]
    ours = {name: set(model.model_fields) for model, name in PAIRS}
    assert ours == {name: set(schemas[name]["properties"]) for _, name in PAIRS}


def test_the_statuses_are_the_lifecycle_s() -> None:
    assert {status.value for status in Status} == {status.value for status in lifecycle.Status}
