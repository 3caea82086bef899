"""GET /jobs/{id}/events: the trail, one row for each change of status (section 1)."""

import pytest

from tests.api.calls import Api, Json, ok, places, refused
from tests.conftest import World


async def test_each_change_of_status_is_one_event(api: Api, world: World) -> None:
    lease = await api.started(retry={"base_seconds": 0}, max_retries=3)
    world.clock.move(1)
    await api.beat(lease, progress=1)
    await api.report(lease, "failed", error={"type": "Timeout", "message": "no answer"})
    lease = await api.claim("w2")
    await api.report(lease, "queued")
    lease = await api.claim("w3")
    await api.cancel(lease)
    await api.beat(lease)
    await api.report(lease, "cancelled")
    await api.retry(lease)
    lease = await api.claim("w4")
    await api.report(lease, "succeeded")

    events = await api.events(lease)
    moves = [
        (
            event["action"],
            event["from_status"],
            event["to_status"],
            event["actor"],
            event["attempt"],
        )
        for event in events
    ]
    assert moves == [
        ("create", None, "queued", "producer", 0),
        ("claim", "queued", "running", "w", 1),
        ("fail", "running", "queued", "w", 1),
        ("claim", "queued", "running", "w2", 2),
        ("release", "running", "queued", "w2", 2),
        ("claim", "queued", "running", "w3", 3),
        ("obey", "running", "cancelled", "w3", 3),
        ("retry", "cancelled", "queued", "operator", 3),
        ("claim", "queued", "running", "w4", 4),
        ("succeed", "running", "succeeded", "w4", 4),
    ]
    for event in events:
        assert set(event) == {
            "id", "action", "from_status", "to_status", "actor", "reason", "attempt", "at",
        }  # fmt: skip
    assert [event["reason"] for event in events if event["reason"]] == ["Timeout: no answer"]
    assert events[0]["at"] == "2026-11-18T11:06:40.000000Z"
    assert events[2]["at"] == "2026-11-18T11:06:41.000000Z"
    ids = [event["id"] for event in events]
    assert ids == sorted(set(ids))


async def test_what_the_reaper_takes_has_a_reason(api: Api, world: World) -> None:
    quiet = await api.started(max_retries=0)
    slow = await api.started(timeout_seconds=10, max_retries=0)
    for _ in range(7):
        await api.try_beat(slow)  # beats don't help over the attempt's time
        await world.pass_time(2)
    await world.pass_time(60)
    for job, reason in ((quiet, "lease-expired"), (slow, "timeout")):
        lost = (await api.events(job))[-1]
        assert (lost["action"], lost["actor"], lost["reason"]) == ("lose", "reaper", reason)
        assert lost["to_status"] == "exhausted"


async def test_cancels_are_the_operators(api: Api) -> None:
    queued = await api.create()
    await api.cancel(queued)
    running = await api.started()
    await api.cancel(running)
    assert await api.actions(running) == ["create", "claim"]  # a request is no change of status
    await api.cancel(running, force=True)
    for job in (queued, running):
        last = (await api.events(job))[-1]
        assert (last["action"], last["actor"]) == ("cancel", "operator")


@pytest.fixture
async def seven(api: Api) -> Json:
    """A job with seven events."""
    job = await api.create()
    for _ in range(3):
        await api.cancel(job)
        await api.retry(job)
    return job


async def test_pages_have_no_gap_and_no_duplicate(api: Api, seven: Json) -> None:
    path = f"/jobs/{seven['id']}/events"
    whole = ok(await api.http.get(path))
    assert len(whole["events"]) == 7
    assert whole["next_cursor"] is None
    for limit in (1, 2, 3, 7, 1000):
        events: list[Json] = []
        query: Json = {"limit": limit}
        while True:
            page = ok(await api.http.get(path, params=query))
            assert len(page["events"]) <= limit
            events += page["events"]
            if page["next_cursor"] is None:
                break
            query["cursor"] = page["next_cursor"]
        assert events == whole["events"]


async def test_a_cursor_goes_on_where_new_events_come(api: Api, seven: Json) -> None:
    path = f"/jobs/{seven['id']}/events"
    page = ok(await api.http.get(path, params={"limit": 6}))
    await api.cancel(seven)
    following = ok(await api.http.get(path, params={"cursor": page["next_cursor"]}))
    assert [event["action"] for event in following["events"]] == ["retry", "cancel"]


async def test_a_page_has_1_to_1000_events(api: Api, seven: Json) -> None:
    path = f"/jobs/{seven['id']}/events"
    for limit in ("0", "1001", "-1", "x", "", "1.0"):
        body = refused(await api.http.get(path, params={"limit": limit}))
        assert places(body) == {"query.limit"}


async def test_a_trail_is_its_jobs_alone(api: Api, seven: Json) -> None:
    other = await api.create()
    assert await api.actions(other) == ["create"]
    assert len(await api.events(seven)) == 7
