"""Create: jobs as they were asked for, ids in order and never twice, a key for one call."""

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy.exc import IntegrityError

from compute_orchestrator.db.engine import Store
from compute_orchestrator.db.statements.create import (
    KeyedCall,
    create_jobs,
    find_keys,
    remember_keys,
)
from compute_orchestrator.db.statements.read import find_jobs
from compute_orchestrator.domain.errors import IdempotencyMismatch
from compute_orchestrator.domain.job import NewJob
from compute_orchestrator.domain.lifecycle import Status
from compute_orchestrator.domain.retry import RetryPolicy
from compute_orchestrator.domain.values import JobId, JsonText, Micros, micros
from compute_orchestrator.services.jobs import CreateCall
from tests.builders import create_call, new_job, report
from tests.clocks import START
from tests.store.house import House, everything, rows, run, trail
from tests.store.undoing import one_store, undone

words = st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=20)
seconds = st.integers(0, 31_536_000) | st.floats(0, 31_536_000)
new_jobs = st.builds(
    NewJob,
    name=words,
    queue=words,
    payload=st.none()
    | st.sampled_from(['{"b":1,"a":[1e300,"\\u00e9"]}', '"é\\n"', "0.1"]).map(JsonText),
    priority=st.integers(-100, 100),
    max_retries=st.integers(0, 1000),
    lease_seconds=st.none() | st.floats(1, 86_400),
    timeout_seconds=st.none() | st.integers(1, 86_400),
    tags=st.lists(words, max_size=4).map(tuple),
    retry=st.builds(RetryPolicy, seconds, st.floats(0, 1000), seconds, st.floats(0, 1)),
)


@settings(one_store, max_examples=60)
@given(wishes=st.lists(new_jobs, min_size=1, max_size=5))
async def test_a_job_is_stored_as_it_was_asked_for(store: Store, wishes: list[NewJob]) -> None:
    async with undone(store) as session:
        answered = await create_jobs(session, wishes)
        read = await find_jobs(session, [job.id for job in answered])
    for wish, job in zip(wishes, answered, strict=True):
        assert read[job.id] == job
        stored = NewJob(
            name=job.name,
            queue=job.queue,
            payload=job.payload,
            priority=job.priority,
            max_retries=job.max_retries,
            lease_seconds=job.lease_seconds,
            timeout_seconds=job.timeout_seconds,
            tags=wish.tags,
            retry=job.retry_policy,
        )
        assert stored == wish


async def test_a_new_job_waits_with_fresh_counters(house: House) -> None:
    job = await house.create()
    assert (job.status, job.delayed, job.run_at) == (Status.QUEUED, False, START)
    assert (job.attempt, job.retry_count, job.release_count) == (0, 0, 0)
    assert (job.created_at, job.updated_at, job.finished_at) == (START, START, None)
    assert (job.locked_by, job.lease_token, job.cancel_requested) == (None, None, False)


async def test_jobs_of_a_batch_are_answered_in_order_with_consecutive_ids(store: Store) -> None:
    async with undone(store) as session:
        wishes = [new_job(f"job {number}", priority=number % 7) for number in range(40)]
        jobs = await create_jobs(session, wishes)
    assert [job.name for job in jobs] == [wish.name for wish in wishes]
    assert [job.id - jobs[0].id for job in jobs] == list(range(40))


async def test_an_id_is_never_used_twice_even_when_the_last_job_is_gone(
    store: Store, house: House
) -> None:
    ids = [(await house.create()).id for _ in range(3)]
    await run(store, "DELETE FROM jobs WHERE id = :id", id=ids[-1])
    ids.append((await house.create()).id)
    await run(store, "DELETE FROM jobs")
    ids.append((await house.create()).id)
    assert ids == sorted(set(ids))


@pytest.mark.parametrize(
    ("wish", "run_at", "delayed"),
    [
        ({}, START, False),
        ({"run_in_seconds": 0}, START, False),
        ({"run_in_seconds": 0.000001}, START + 1, True),
        ({"run_in_seconds": 31_536_000}, START + micros(31_536_000), True),
        ({"run_at": START}, START, False),
        ({"run_at": START + 1}, START + 1, True),
        ({"run_at": 0}, 0, False),
    ],
)
async def test_a_job_for_later_is_delayed_and_one_for_now_is_not(
    house: House, wish: dict[str, Any], run_at: int, delayed: bool
) -> None:
    job = await house.create(**wish)
    assert (job.run_at, job.delayed, job.status) == (run_at, delayed, Status.QUEUED)


async def test_the_trail_begins_with_the_create(store: Store, house: House) -> None:
    job = await house.create()
    (step,) = await trail(store, job.id)
    told = [step[name] for name in ("action", "from_status", "to_status", "actor", "attempt", "at")]
    assert told == ["create", None, "queued", "producer", 0, START]


async def test_tags_are_indexed_once_each_and_shown_as_sent(store: Store, house: House) -> None:
    job = await house.create(tags=("b", "a", "b"))
    assert job.tags == '["b","a","b"]'
    indexed = await rows(
        store, "SELECT tag FROM job_tags WHERE job_id = :id ORDER BY tag", id=job.id
    )
    assert [row["tag"] for row in indexed] == ["a", "b"]


# Keys.


async def test_a_key_makes_one_job_however_often_it_is_sent(store: Store, house: House) -> None:
    first = await house.jobs.create(create_call(key="k"))
    before = await everything(store)
    again = await house.jobs.create(create_call(key="k"))
    assert (first.new, again.new) == (True, False)
    assert again.jobs == first.jobs
    assert await everything(store) == before


async def test_copies_of_a_create_at_the_same_time_make_one_job(store: Store, house: House) -> None:
    made = await asyncio.gather(*(house.jobs.create(create_call(key="k")) for _ in range(5)))
    assert sorted(one.new for one in made) == [False] * 4 + [True]
    assert len({one.jobs[0].id for one in made}) == 1
    assert len(await rows(store, "SELECT id FROM jobs")) == 1


async def test_a_repeat_shows_the_job_as_it_stands(house: House) -> None:
    await house.jobs.create(create_call(key="k"))
    await house.reports.report(report(await house.claim()))
    again = await house.jobs.create(create_call(key="k"))
    assert again.jobs[0].status is Status.SUCCEEDED


async def test_a_key_with_another_body_is_refused_and_writes_nothing(
    store: Store, house: House
) -> None:
    await house.jobs.create(create_call("one", key="k"))
    before = await everything(store)
    with pytest.raises(IdempotencyMismatch):
        await house.jobs.create(create_call("two", key="k"))
    assert await everything(store) == before


async def test_keyed_repeated_and_plain_creates_share_a_turn(house: House) -> None:
    old = await house.jobs.create(create_call("old", key="old"))
    calls = [
        create_call("plain"),
        create_call("old", key="old"),
        create_call("new", key="new"),
        CreateCall([new_job("other")], "old", "another hash"),
        create_call("plain"),
    ]
    made = await asyncio.gather(*map(house.jobs.create, calls), return_exceptions=True)
    assert isinstance(made.pop(3), IdempotencyMismatch)
    names = [one.jobs[0].name for one in made if not isinstance(one, BaseException)]
    assert names == ["plain", "old", "new", "plain"]
    assert not isinstance(made[1], BaseException)
    assert made[1].jobs[0].id == old.jobs[0].id


async def test_the_store_itself_refuses_the_second_use_of_a_key(house: House) -> None:
    async with house.transactions.write() as session:
        await remember_keys(
            session, [KeyedCall("k", "hash", (JobId(1),)), KeyedCall("l", "hash", (JobId(2),))]
        )
    with pytest.raises(IntegrityError):
        async with house.transactions.write() as session:
            await remember_keys(session, [KeyedCall("k", "hash", (JobId(3),))])
    async with house.transactions.write() as session:
        found = await find_keys(session, ["k", "l", "m"])
    assert found == {
        "k": KeyedCall("k", "hash", (JobId(1),)),
        "l": KeyedCall("l", "hash", (JobId(2),)),
    }


async def test_run_at_may_lie_anywhere_between_1970_and_9999(store: Store) -> None:
    last = Micros(253_402_300_799_999_999)
    async with undone(store) as session:
        jobs = await create_jobs(session, [new_job(run_at=Micros(0)), new_job(run_at=last)])
    assert [job.run_at for job in jobs] == [0, last]
