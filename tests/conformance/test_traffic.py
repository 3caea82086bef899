"""A sync is read as the single calls that it stands for."""

import json
from typing import Any

from compute_orchestrator.conformance.traffic import Call, Exchange, Kind, Traffic

REPORT = {"id": 1, "lease_token": "a", "status": "succeeded"}
STALE = {"id": 2, "lease_token": "b", "status": "succeeded"}
BEAT = {"id": 3, "lease_token": "c"}
CLAIM = {"queues": ["q"], "limit": 2, "request_id": "r"}


def exchanged(method: str, path: str, sent: Any, status: int, answer: Any) -> Exchange:
    traffic = Traffic()
    exchange = traffic.begin(method, path, json.dumps(sent).encode())
    traffic.read_answer(exchange, status, json.dumps(answer).encode())
    return exchange


def shown(call: Call) -> tuple[Kind, str | None, int | None, int | None]:
    return call.kind, call.worker_id, call.job_id, call.status


async def test_single_calls() -> None:
    claim = exchanged("POST", "/jobs/claim", {"worker_id": "w", **CLAIM}, 200, {"id": 1})
    assert [shown(call) for call in claim.calls] == [(Kind.CLAIM, "w", None, 200)]
    assert claim.calls[0].jobs == [{"id": 1}]
    beat = exchanged("POST", "/jobs/3/heartbeat", {"worker_id": "w"}, 409, {"code": "lease-lost"})
    assert [shown(call) for call in beat.calls] == [(Kind.HEARTBEAT, "w", 3, 409)]
    report = exchanged("PATCH", "/jobs/4/status", {"worker_id": "w"}, 503, {})
    assert [shown(call) for call in report.calls] == [(Kind.REPORT, "w", 4, 503)]


async def test_each_item_of_a_sync_has_its_own_answer() -> None:
    exchange = exchanged(
        "POST",
        "/workers/w/sync",
        {"reports": [REPORT, STALE], "heartbeats": [BEAT], "claim": CLAIM},
        200,
        {
            "reports": [{"id": 1, "status": "succeeded"}, {"id": 2, "problem": {"status": 409}}],
            "heartbeats": [{"id": 3, "cancel_requested": True}],
            "jobs": [{"id": 5}, {"id": 6}],
        },
    )
    assert [shown(call) for call in exchange.calls] == [
        (Kind.REPORT, "w", 1, 200),
        (Kind.REPORT, "w", 2, 409),
        (Kind.HEARTBEAT, "w", 3, 200),
        (Kind.CLAIM, "w", None, 200),
    ]
    assert exchange.calls[2].answer["cancel_requested"]
    assert [job["id"] for job in exchange.calls[3].jobs] == [5, 6]


async def test_a_sync_that_is_refused_is_refused_in_all_of_it() -> None:
    sent = {"reports": [REPORT], "claim": CLAIM}
    exchange = exchanged("POST", "/workers/w/sync", sent, 503, {"detail": "not now"})
    assert {call.status for call in exchange.calls} == {503}
    assert exchange.calls[1].jobs == ()
    assert exchange.problem == "not now"


async def test_what_no_worker_sends_carries_nothing() -> None:
    assert exchanged("GET", "/stats", None, 200, {}).calls == []
    assert exchanged("POST", "/workers/w/sync", ["no object"], 422, {}).calls == []
