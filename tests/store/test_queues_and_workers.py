"""Queues and workers: what is set on a queue, and who was seen when."""

import pytest

from compute_orchestrator.db.engine import Store
from compute_orchestrator.domain.errors import StoreUnavailable
from compute_orchestrator.services.coalescer import Coalescer
from compute_orchestrator.services.queues import PauseCall
from compute_orchestrator.services.stats import Waiting
from compute_orchestrator.services.workers import REMEMBERED
from tests.builders import heartbeat, report
from tests.clocks import START
from tests.store.house import House, everything, rows

DAY = REMEMBERED / 1_000_000


async def test_every_queue_that_was_used_or_is_paused_is_listed_by_name(house: House) -> None:
    await house.running(queue="b")
    await house.create(queue="b")
    await house.create(queue="b", run_in_seconds=5)
    await house.queues.pause(PauseCall("a", paused=True))
    await house.queues.pause(PauseCall("never used", paused=True))
    await house.queues.pause(PauseCall("never used", paused=False))
    await house.reports.report(report(await house.running(queue="c")))
    assert [(queue.name, queue.paused, queue.waiting) for queue in await house.queues.all()] == [
        ("a", True, Waiting()),
        ("b", False, Waiting(queued=1, delayed=1, running=1)),
        ("c", False, Waiting()),
    ]


async def test_a_pause_answers_the_queue_may_be_repeated_and_leaves_nothing_behind(
    store: Store, house: House
) -> None:
    await house.create(queue="q")
    for paused in (True, True, False, False):
        queue = await house.queues.pause(PauseCall("q", paused=paused))
        assert (queue.name, queue.paused, queue.waiting) == ("q", paused, Waiting(queued=1))
        kept = [{"name": "q", "paused": 1}] if paused else []
        assert await rows(store, "SELECT * FROM queues") == kept


async def test_a_worker_is_seen_by_each_of_its_calls_before_anything_is_written(
    store: Store, house: House
) -> None:
    job = await house.running()
    house.clock.move(1)
    await house.heartbeats.beat(heartbeat(job))
    (worker,) = await house.workers.all()
    assert (worker.worker_id, worker.last_seen_at, worker.running) == ("w", START + 1_000_000, 1)
    house.clock.move(1)
    await house.reports.report(report(job))
    (worker,) = await house.workers.all()
    assert (worker.last_seen_at, worker.running) == (START + 2_000_000, 0)
    assert await rows(store, "SELECT * FROM workers") == []


async def test_sightings_are_written_once_and_only_when_there_are_any(
    store: Store, house: House
) -> None:
    house.workers.seen("v")
    house.workers.seen("w")
    assert await house.workers.write_sightings_once() == 2
    before = await everything(store)
    assert len(before["workers"]) == 2
    assert await house.workers.write_sightings_once() == 0
    assert await everything(store) == before


async def test_an_old_sighting_never_hides_a_newer_one(store: Store, house: House) -> None:
    house.clock.move(10)
    house.workers.seen("w")
    await house.workers.write_sightings_once()
    house.clock.move(-5)
    house.workers.seen("w")
    await house.workers.write_sightings_once()
    (row,) = await rows(store, "SELECT last_seen_at FROM workers")
    assert row["last_seen_at"] == START + 10_000_000


async def test_sightings_that_could_not_be_written_are_kept(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.workers.seen("w")

    async def fail(*_: object) -> None:
        house.clock.move(1)
        house.workers.seen("v")
        raise StoreUnavailable("away")

    with monkeypatch.context() as patch:
        patch.setattr(Coalescer, "submit", fail)
        with pytest.raises(StoreUnavailable):
            await house.workers.write_sightings_once()
    assert await house.workers.write_sightings_once() == 2
    seen = {worker.worker_id: worker.last_seen_at for worker in await house.workers.all()}
    assert seen == {"v": START + 1_000_000, "w": START}


async def test_workers_unseen_for_a_day_are_forgotten(store: Store, house: House) -> None:
    house.workers.seen("old")
    await house.workers.write_sightings_once()
    house.clock.move(DAY - 0.000001)
    assert [worker.worker_id for worker in await house.workers.all()] == ["old"]
    house.clock.move(0.000001)
    assert await house.workers.all() == []
    house.workers.seen("new")
    await house.workers.write_sightings_once()
    assert [row["worker_id"] for row in await rows(store, "SELECT worker_id FROM workers")] == [
        "new"
    ]


async def test_the_latest_seen_stands_first(house: House) -> None:
    for name in ("b", "a", "c"):
        house.workers.seen(name)
    house.clock.move(1)
    house.workers.seen("z")
    assert [worker.worker_id for worker in await house.workers.all()] == ["z", "a", "b", "c"]
