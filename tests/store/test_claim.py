"""Claims: who gets which job, for how long, and the same lease for the same request."""

import asyncio
import re
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compute_orchestrator.db.engine import Store
from compute_orchestrator.db.statements.claim import claim_jobs, claimed_before
from compute_orchestrator.db.statements.create import create_jobs
from compute_orchestrator.db.statements.queues import set_paused
from compute_orchestrator.domain.job import Job, NewJob
from compute_orchestrator.domain.lifecycle import Status
from compute_orchestrator.domain.retry import Failed, Released
from compute_orchestrator.domain.values import Micros, micros
from compute_orchestrator.schemas.claims import ClaimInput
from compute_orchestrator.services.queues import PauseCall
from tests.builders import claim_request, lease_key, new_job, report
from tests.clocks import START, ManualClock
from tests.store.house import House, everything, job_row, rows
from tests.store.undoing import one_store, undone

QUEUES = ("a", "b", "c", "d")


def waiting_job(queue: str, priority: int, run_in: int) -> NewJob:
    return new_job(queue=queue, priority=priority, run_at=Micros(START + micros(run_in)))


# Few different values, so that many jobs are equal but for the last of the three.
waiting_jobs = st.builds(
    waiting_job, st.sampled_from(QUEUES), st.integers(-1, 1), st.integers(-2, 1)
)


def best_first(jobs: Sequence[Job], wanted: Sequence[str], paused: set[str]) -> list[Job]:
    """The model: what may be taken, in the order in which it is taken."""
    takeable = [
        job
        for job in jobs
        if job.queue in wanted and job.queue not in paused and job.run_at <= START
    ]
    return sorted(takeable, key=lambda job: (-job.priority, job.run_at, job.id))


@settings(one_store, max_examples=80)
@given(
    wishes=st.lists(waiting_jobs, max_size=25),
    wanted=st.lists(st.sampled_from((*QUEUES, "unknown")), min_size=1, max_size=5, unique=True),
    paused=st.sets(st.sampled_from(QUEUES), max_size=2),
    claimers=st.integers(1, 12),
)
async def test_claims_take_the_best_jobs_of_their_queues_in_order(
    store: Store, wishes: list[NewJob], wanted: list[str], paused: set[str], claimers: int
) -> None:
    async with undone(store) as session:
        jobs = await create_jobs(session, wishes) if wishes else []
        await set_paused(session, dict.fromkeys(paused, True))
        requests = [claim_request(f"worker {number}") for number in range(claimers)]
        taken = await claim_jobs(session, requests, wanted, 60)
    expected = [job.id for job in best_first(jobs, wanted, paused)[:claimers]]
    assert [job.id for jobs in taken for job in jobs] == expected
    assert [len(jobs) for jobs in taken] == [int(n < len(expected)) for n in range(claimers)]
    for request, its in zip(requests, taken, strict=True):
        assert all(job.locked_by == request.worker_id for job in its)


@settings(one_store, max_examples=40)
@given(
    wishes=st.lists(waiting_jobs, max_size=20),
    limits=st.lists(st.integers(1, 8), min_size=1, max_size=5),
)
async def test_each_claim_of_a_batch_takes_up_to_its_limit_in_its_turn(
    store: Store, wishes: list[NewJob], limits: list[int]
) -> None:
    async with undone(store) as session:
        jobs = await create_jobs(session, wishes)
        requests = [
            claim_request(f"w{n}", limit=limit, request_id="r") for n, limit in enumerate(limits)
        ]
        taken = await claim_jobs(session, requests, QUEUES, 60)
        again = await claimed_before(session, requests)
    left = [job.id for job in best_first(jobs, list(QUEUES), set())]
    for request, its in zip(requests, taken, strict=True):
        assert [job.id for job in its] == left[: request.limit]
        assert {job.locked_by for job in its} <= {request.worker_id}
        assert again.get((request.worker_id, "r"), []) == its
        left = left[request.limit :]


@settings(one_store, max_examples=25)
@given(
    wishes=st.lists(waiting_jobs, max_size=12),
    wants=st.lists(st.sets(st.sampled_from(QUEUES), min_size=1), min_size=1, max_size=8),
)
async def test_claims_one_after_the_other_take_what_a_greedy_model_takes(
    store: Store, wishes: list[NewJob], wants: list[set[str]]
) -> None:
    async with undone(store) as session:
        left = await create_jobs(session, wishes) if wishes else []
        for want in wants:
            (taken,) = await claim_jobs(session, [claim_request()], sorted(want), 60)
            best = [job.id for job in best_first(left, sorted(want), set())[:1]]
            assert [job.id for job in taken] == best
            left = [job for job in left if job.id not in best]


async def test_a_delayed_job_is_not_claimed_before_it_is_promoted(
    house: House, clock: ManualClock
) -> None:
    job = await house.create(run_in_seconds=10, priority=100)
    clock.move(9.999999)
    await house.promoter.promote_once()
    assert not await house.claims.claim(claim_request())
    clock.move(0.000001)
    await house.promoter.promote_once()
    assert (await house.claim()).id == job.id


async def test_a_queue_named_twice_is_asked_once(house: House) -> None:
    asked = ClaimInput.model_validate({"worker_id": "w", "queues": ["b", "a", "b", "a"]})
    assert asked.of("w").queues == ("a", "b")
    jobs = {(await house.create(queue="a")).id, (await house.create(queue="b")).id}
    claims = [await house.claims.claim(asked.of("w")) for _ in range(3)]
    assert {job.id for its in claims for job in its} == jobs
    assert not claims[2]


async def test_a_paused_queue_gives_nothing_until_it_is_resumed(house: House) -> None:
    job = await house.create(queue="a")
    await house.queues.pause(PauseCall("a", paused=True))
    assert not await house.claims.claim(claim_request("w", "a", "b"))
    await house.queues.pause(PauseCall("a", paused=False))
    assert (await house.claim("w", "a", "b")).id == job.id


async def test_a_claim_that_finds_nothing_writes_nothing(store: Store, house: House) -> None:
    await house.create(queue="elsewhere")
    before = await everything(store)
    assert not await house.claims.claim(claim_request(request_id="again"))
    assert await everything(store) == before


async def test_claims_of_one_turn_with_other_queues_each_get_theirs(house: House) -> None:
    for queue in ("a", "b", "a"):
        await house.create(queue=queue)
    asked = [("a",), ("b",), ("a", "b"), ("c",), ("b",)]
    taken = await asyncio.gather(
        *(house.claims.claim(claim_request(f"w{n}", *queues)) for n, queues in enumerate(asked))
    )
    assert [[job.queue for job in its] for its in taken] == [["a"], ["b"], ["a"], [], []]
    assert [job.locked_by for its in taken for job in its] == ["w0", "w1", "w2"]


# The lease.


async def test_every_lease_has_a_token_of_its_own(store: Store) -> None:
    async with undone(store) as session:
        await create_jobs(session, [new_job()] * 200)
        taken = await claim_jobs(session, [claim_request()] * 200, ["default"], 60)
    tokens = {job.lease_token for its in taken for job in its}
    assert len(tokens) == 200
    assert all(re.fullmatch(r"[0-9a-f]{32}", token or "") for token in tokens)


async def test_a_token_can_not_be_told_from_the_job(store: Store) -> None:
    """The same claim of the same job at the same time, twice."""
    taken: list[Job] = []
    for _ in range(2):
        async with undone(store) as session:
            await create_jobs(session, [new_job()])
            taken += (await claim_jobs(session, [claim_request()], ["default"], 60))[0]
    one, other = taken
    assert (one.queue, one.locked_at, one.attempt) == (other.queue, other.locked_at, other.attempt)
    assert one.lease_token != other.lease_token


@pytest.mark.parametrize(
    ("of_claim", "of_job", "of_attempt", "held"),
    [
        (None, None, None, 60),
        (None, 20, None, 20),
        (5, 20, None, 5),
        (90, 20, None, 90),
        (None, None, 30, 30),
        (5, None, 30, 5),
        (90, 80, 30, 30),
        (1.5, None, None, 1.5),
    ],
)
async def test_a_lease_is_as_long_as_the_claim_says_else_the_job_else_the_setting(
    store: Store,
    house: House,
    of_claim: float | None,
    of_job: float | None,
    of_attempt: float | None,
    held: float,
) -> None:
    await house.create(lease_seconds=of_job, timeout_seconds=of_attempt)
    job = await house.claim(lease_seconds=of_claim)
    assert job.held_seconds == held
    assert job.lease_expires_at == START + micros(held)
    assert (await job_row(store, job.id))["lease_seconds"] == of_job


async def test_a_claim_changes_what_a_lease_is_and_nothing_else(store: Store, house: House) -> None:
    created = await house.create(payload='{"a":1}', tags=("t",))
    before = await job_row(store, created.id)
    house.clock.move(3)
    now = house.clock.now()
    job = await house.claim("host-1", lease_seconds=10)
    after = await job_row(store, created.id)
    assert {name: value for name, value in after.items() if before[name] != value} == {
        "status": Status.RUNNING,
        "attempt": 1,
        "locked_by": "host-1",
        "locked_at": now,
        "last_heartbeat_at": now,
        "lease_expires_at": now + micros(10),
        "held_seconds": 10.0,
        "lease_token": job.lease_token,
        "updated_at": now,
    }


async def test_every_claim_counts_as_an_attempt_released_or_not(house: House) -> None:
    await house.create()
    for number in range(1, 5):
        job = await house.claim()
        assert job.attempt == number
        outcome = Released(0) if number % 2 else Failed(retry_in_seconds=0)
        await house.reports.report(report(job, outcome))


# The same request, the same lease.


async def test_a_repeated_request_gets_its_lease_again_and_counts_as_a_heartbeat(
    store: Store, house: House
) -> None:
    await house.create()
    await house.create()
    first = await house.claim(request_id="r", lease_seconds=10)
    house.clock.move(8)
    again = await house.claim(request_id="r", lease_seconds=10)
    assert lease_key(again) == lease_key(first)
    assert again.attempt == 1
    assert again.last_heartbeat_at == house.clock.now()
    assert again.lease_expires_at == house.clock.now() + micros(10)
    assert len(await rows(store, "SELECT 1 FROM job_events WHERE action = 'claim'")) == 1


async def test_a_repeated_request_extends_its_lease_only_up_to_the_timeout(house: House) -> None:
    await house.create(timeout_seconds=12)
    first = await house.claim(request_id="r", lease_seconds=10)
    house.clock.move(8)
    again = await house.claim(request_id="r", lease_seconds=10)
    assert again.lease_expires_at == (first.locked_at or 0) + micros(12)


async def test_a_request_is_bound_to_its_worker(house: House) -> None:
    for _ in range(3):
        await house.create()
    leases = [
        await house.claim("w", request_id="r"),
        await house.claim("other", request_id="r"),
        await house.claim("w", request_id="s"),
    ]
    assert len({job.id for job in leases}) == 3


async def test_two_copies_of_a_request_at_the_same_time_are_one_claim(house: House) -> None:
    for _ in range(3):
        await house.create()
    copies = await asyncio.gather(*(house.claim("w", request_id="r") for _ in range(3)))
    assert len({lease_key(job) for job in copies}) == 1
    waiting = (await house.queues.all())[0].waiting
    assert (waiting.queued, waiting.running) == (2, 1)


async def test_a_request_whose_job_was_reported_is_a_new_claim(house: House) -> None:
    for _ in range(2):
        await house.create()
    first = await house.claim(request_id="r")
    await house.reports.report(report(first))
    second = await house.claim(request_id="r")
    assert second.id != first.id


async def test_claims_without_a_request_are_never_taken_for_repeats(house: House) -> None:
    for _ in range(2):
        await house.create()
    assert (await house.claim()).id != (await house.claim()).id


async def test_a_request_that_found_nothing_is_asked_anew(house: House) -> None:
    assert await house.try_claim(claim_request(request_id="r")) is None
    job = await house.create()
    assert (await house.claim(request_id="r")).id == job.id
