"""Several replicas on one database: whatever they do at the same time is done once, none waits for
another that froze, and no two wait for each other.

The replicas are stores and services of their own in this process. Their transactions meet in the
server, which runs each in a process of its own.
"""

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import asyncpg
import pytest

from compute_orchestrator.db.engine import Store, build_store
from compute_orchestrator.db.sessions import ReadSession, Statement, WriteSession
from compute_orchestrator.db.statements import claim
from compute_orchestrator.db.statements.prune import prune_finished
from compute_orchestrator.db.statements.queues import set_paused
from compute_orchestrator.db.statements.read import find_jobs
from compute_orchestrator.db.statements.reap import expired_leases, note_pass
from compute_orchestrator.domain.errors import InvalidTransition, LeaseLost
from compute_orchestrator.domain.job import Job
from compute_orchestrator.domain.lease import ClaimRequest
from compute_orchestrator.domain.lifecycle import Status
from compute_orchestrator.domain.report import ReportedOutcome, Succeeded
from compute_orchestrator.domain.retry import Failed, Obeyed, Released
from compute_orchestrator.domain.values import JobId, Micros, micros
from compute_orchestrator.services import jobs as job_service
from compute_orchestrator.services.jobs import CreateCall
from compute_orchestrator.services.operations import CancelCall, RetryCall
from compute_orchestrator.services.reaper import Pass
from tests.builders import claim_request, create_call, heartbeat, new_job, report
from tests.clocks import ManualClock
from tests.store.house import INTERVAL_SECONDS, House, everything, job_row, rows, run, trail
from tests.stores import only_postgresql

T = TypeVar("T")

LOOKS = 5_000
"""Questions to the server until what must come is there."""
WATCH_EARLIER = "UPDATE watch SET since = since - interval '1 hour'"
STAND_STILL = Statement(sqlite="", postgresql="SELECT pg_sleep(1.2)")
DUE_EARLIER = "UPDATE jobs SET run_at = run_at - interval '1 hour' WHERE delayed = 1"


new_store = only_postgresql


@asynccontextmanager
async def running_replicas(url: str, number: int) -> AsyncGenerator[list[House]]:
    """Replicas that live in the database's time."""
    houses = [House(build_store(url), ManualClock(real_now())) for _ in range(number)]
    try:
        yield houses
    finally:
        for house in houses:
            await house.close()
            await house.store.close()


@pytest.fixture
async def replicas(store_url: str) -> AsyncGenerator[list[House]]:
    async with running_replicas(store_url, 3) as houses:
        yield houses


@asynccontextmanager
async def connected(url: str) -> AsyncGenerator[asyncpg.Connection]:
    connection = await asyncpg.connect(url)
    try:
        yield connection
    finally:
        await connection.close()


@asynccontextmanager
async def held(url: str, *sql: str) -> AsyncGenerator[None]:
    """A transaction of another replica, which froze after these statements."""
    async with connected(url) as frozen:
        transaction = frozen.transaction()
        await transaction.start()
        for each in sql:
            await frozen.execute(each)
        yield
        await transaction.rollback()


async def until_waiting(url: str, number: int) -> None:
    """Until so many connections to this database wait for a lock."""
    question = """
        SELECT count(*) FROM pg_stat_activity
         WHERE datname = current_database() AND wait_event_type = 'Lock'
    """
    async with connected(url) as connection:
        for _ in range(LOOKS):
            if await connection.fetchval(question) >= number:
                return
    pytest.fail(f"{number} connections never came to wait")


def real_now() -> Micros:
    return Micros(time.time_ns() // 1_000)


async def together(*calls: Awaitable[T]) -> list[T]:
    return list(await asyncio.gather(*calls))


async def outcomes(*calls: Awaitable[T]) -> list[T | BaseException]:
    return list(await asyncio.gather(*calls, return_exceptions=True))


async def deadlocks(url: str) -> int:
    """How often the server broke a circle. A connection tells it at the latest when it ends."""
    async with connected(url) as connection:
        sql = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
        return await connection.fetchval(sql)


# --- claims


async def test_of_many_claims_at_once_each_gets_a_job_of_its_own(store_url: str) -> None:
    async with running_replicas(store_url, 6) as houses:
        queues = ("a", "b", "c")
        created = await together(
            *(houses[0].create(queue=queues[n % 3], priority=n % 4) for n in range(300))
        )
        claims = [
            house.try_claim(claim_request(f"w{number}", *random.sample(queues, 3)))
            for number, house in enumerate(houses)
            for _ in range(50)
        ]
        random.shuffle(claims)
        jobs = await together(*claims)
    assert None not in jobs
    assert {job.id for job in jobs if job} == {job.id for job in created}
    assert len({job.lease_token for job in jobs if job}) == 300


async def test_nobody_gets_an_empty_answer_while_there_are_jobs(store_url: str) -> None:
    """One after the other, until there is nothing: then all that is left is in somebody's hands."""
    async with running_replicas(store_url, 6) as houses:
        queues = ("a", "b", "c")
        await together(*(houses[0].create(queue=queues[n % 3]) for n in range(300)))
        taken: set[JobId] = set()
        asking = 0

        async def work(house: House) -> None:
            nonlocal asking
            while True:
                asking += 1
                job = await house.try_claim(claim_request("w", *queues))
                asking -= 1
                if job is None:
                    assert len(taken) + asking >= 300
                    return
                assert job.id not in taken
                taken.add(job.id)

        await together(*(work(house) for house in houses for _ in range(2)))
    assert len(taken) == 300


async def test_jobs_that_another_holds_are_passed_over_however_many_they_are(
    store_url: str, replicas: list[House]
) -> None:
    house = replicas[0]
    await together(*(house.create(queue=queue) for queue in ("a", "b") for _ in range(300)))
    first = "SELECT id FROM jobs WHERE queue = '{}' ORDER BY id LIMIT 299 FOR UPDATE"
    async with held(store_url, first.format("a"), first.format("b")):
        jobs = await together(
            *(house.try_claim(claim_request("w", *queues)) for queues in ["ab", "ab", "ab"])
        )
    assert sorted(job.queue for job in jobs if job) == ["a", "b"]


async def test_claims_of_large_jobs_are_brought_in_parts_and_nobody_goes_empty(
    replicas: list[House], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What takes longer than a statement may is rolled back, and would be tried for ever."""
    house = replicas[0]
    monkeypatch.setattr(claim, "LARGEST_ANSWER_BYTES", 25)
    for size in (1, 8, 8, 8, 8, 100, 8):
        await house.create(payload=f'"{"x" * size}"')
    brought: list[int] = []
    fetch = WriteSession.fetch

    async def noted(session: WriteSession, statement: Statement, **parameters: Any) -> Any:
        rows = await fetch(session, statement, **parameters)
        if statement is claim.CLAIM:
            brought.append(len(rows))
        return rows

    monkeypatch.setattr(WriteSession, "fetch", noted)
    async with house.transactions.write() as session:
        requests = [claim_request(f"w{number}") for number in range(7)]
        jobs = await claim.claim_jobs(session, requests, ["default"], 60)
    assert [len(job.payload or "") for (job,) in jobs] == [3, 10, 10, 10, 10, 102, 10]
    assert [job.locked_by for (job,) in jobs] == [f"w{number}" for number in range(7)]
    assert brought == [4, 2, 1]


async def test_two_claims_with_one_request_id_are_one_claim(replicas: list[House]) -> None:
    for number in range(20):
        await together(*(replicas[0].create() for _ in range(3)))
        request = claim_request("w", request_id=f"r{number}")
        jobs = await together(*(house.try_claim(request) for house in replicas))
        assert len({(job.id, job.lease_token) for job in jobs if job}) == 1
        assert None not in jobs


async def test_many_repeated_requests_at_once_are_one_claim_each(
    replicas: list[House],
) -> None:
    """In any order: a replica that was away sends all its claims again, through another one."""
    numbers = list(range(40))
    await together(*(replicas[0].create() for _ in range(200)))
    calls: list[Coroutine[Any, Any, Job | None]] = []
    for house in replicas:
        random.shuffle(numbers)
        calls += [house.try_claim(claim_request(f"w{n % 7}", request_id=f"r{n}")) for n in numbers]
    jobs = await together(*calls)
    assert None not in jobs
    assert len({job.id for job in jobs if job}) == len(numbers)


# --- creates


async def test_two_creates_with_one_key_make_one_job(replicas: list[House]) -> None:
    for number in range(20):
        call = create_call(key=f"k{number}", tags=("t",))
        made = await together(*(house.jobs.create(call) for house in replicas))
        assert len({one.jobs[0].id for one in made}) == 1
        assert sum(one.new for one in made) == 1
    assert len(await rows(replicas[0].store, "SELECT id FROM jobs")) == 20


async def test_many_repeated_creates_at_once_make_one_job_each(replicas: list[House]) -> None:
    numbers = list(range(60))
    calls: list[Coroutine[Any, Any, Any]] = []
    for house in replicas:
        random.shuffle(numbers)
        calls += [house.jobs.create(create_call(key=f"k{number}")) for number in numbers]
    made = await together(*calls)
    assert len({one.jobs[0].id for one in made}) == len(numbers)
    assert sum(one.new for one in made) == len(numbers)
    assert len(await rows(replicas[0].store, "SELECT id FROM jobs")) == len(numbers)


# --- reports and cancels


async def test_two_reports_with_one_token_have_one_effect(replicas: list[House]) -> None:
    for outcome in (Succeeded(), Failed(), Failed(retryable=False), Released()):
        for number in range(8):
            job = await replicas[0].running(queue=f"{outcome} {number}")
            said = await together(
                *(house.reports.report(report(job, outcome)) for house in replicas)
            )
            assert len(set(said)) == 1
            steps = [step["action"] for step in await trail(replicas[0].store, job.id)]
            assert steps == ["create", "claim", report(job, outcome).action]


async def test_of_two_reports_that_say_different_things_one_is_taken(
    replicas: list[House],
) -> None:
    for _ in range(20):
        job = await replicas[0].running()
        said = await outcomes(
            replicas[1].reports.report(report(job, Succeeded())),
            replicas[2].reports.report(report(job, Failed(retryable=False))),
        )
        (taken,) = [one for one in said if not isinstance(one, BaseException)]
        (refused,) = [one for one in said if isinstance(one, BaseException)]
        assert isinstance(refused, InvalidTransition)
        assert taken.status in (Status.SUCCEEDED, Status.FAILED)
        assert len(await trail(replicas[0].store, job.id)) == 3


@pytest.mark.parametrize("force", [True, False])
@pytest.mark.parametrize("outcome", [Succeeded(), Failed(retry_in_seconds=0)])
async def test_a_cancel_and_a_report_meet_and_the_trail_is_a_path(
    replicas: list[House], outcome: ReportedOutcome, force: bool
) -> None:
    for _ in range(12):
        job = await replicas[0].running()
        said = await outcomes(
            replicas[1].reports.report(report(job, outcome)),
            replicas[2].operations.cancel(CancelCall(job.id, force=force)),
        )
        assert all(isinstance(one, (Job, LeaseLost, InvalidTransition)) for one in said)
        steps = await trail(replicas[0].store, job.id)
        status = (await job_row(replicas[0].store, job.id))["status"]
        path = [(step["from_status"], step["to_status"]) for step in steps]
        assert [after for _, after in path[:-1]] == [before for before, _ in path[1:]]
        assert path[-1][1] == status
        actions = [step["action"] for step in steps[2:]]
        if outcome == Succeeded():
            assert actions in (["succeed"], ["cancel"] if force else [])
            refusal = {"succeed": InvalidTransition, "cancel": LeaseLost}[actions[0]]
            marked = not force and isinstance(said[1], Job)
            assert marked or [type(one) for one in said].count(refusal) == 1
        else:
            assert status == Status.CANCELLED
            assert actions in (["fail"], ["fail", "cancel"], ["cancel"])


# --- the loops: a pass of the reaper, the promoter, the counters


async def let_all_leases_run_out(store: Store) -> None:
    """An hour goes by, in which the reaper was awake and no worker was heard."""
    sql = """
        UPDATE jobs
           SET lease_expires_at = lease_expires_at - interval '1 hour',
               last_heartbeat_at = last_heartbeat_at - interval '1 hour',
               locked_at = locked_at - interval '1 hour'
         WHERE status = 'running'
    """
    await run(store, sql)
    await run(store, WATCH_EARLIER)


async def test_reapers_of_all_replicas_at_once_take_each_lost_job_once(
    replicas: list[House],
) -> None:
    store = replicas[0].store
    created = await together(*(replicas[0].create() for _ in range(450)))
    await together(*(replicas[0].claim() for _ in created))
    assert (await replicas[0].reaper.reap_once()).taken == 0
    await let_all_leases_run_out(store)
    passes = await together(*(house.reaper.reap_once() for house in replicas))
    assert sum(done.requeued for done in passes) == sum(done.taken for done in passes) == 450
    lost = await rows(store, "SELECT job_id FROM job_events WHERE action = 'lose'")
    assert sorted(row["job_id"] for row in lost) == sorted(job.id for job in created)


@pytest.mark.parametrize(
    "frozen",
    [
        "SELECT id FROM watch FOR UPDATE",
        "UPDATE watch SET last_pass_at = clock_timestamp()",
    ],
)
async def test_while_one_makes_its_pass_the_others_go_by(
    store_url: str, replicas: list[House], frozen: str
) -> None:
    store = replicas[0].store
    await replicas[0].running()
    await replicas[0].reaper.reap_once()
    await let_all_leases_run_out(store)
    async with held(store_url, frozen), asyncio.timeout(3):
        passes = await together(*(house.reaper.reap_once() for house in replicas))
        assert passes == [Pass()] * len(replicas)
    assert (await replicas[0].reaper.reap_once()).requeued == 1


async def test_passes_of_all_replicas_at_once_are_no_gap(replicas: list[House]) -> None:
    """One that waited a moment after it read the time must not take another's for the future."""
    store = replicas[0].store
    await replicas[0].running()
    await replicas[0].reaper.reap_once()
    (before,) = await rows(store, "SELECT since FROM watch")

    async def keep_passing(house: House) -> None:
        for _ in range(100):
            await house.reaper.reap_once()

    await together(*(keep_passing(house) for house in replicas for _ in range(2)))
    (after,) = await rows(store, "SELECT since, last_pass_at FROM watch")
    assert after["since"] == before["since"] < after["last_pass_at"]


async def test_a_pass_during_which_the_network_stands_still_takes_no_lease(
    replicas: list[House],
) -> None:
    """The heartbeats stand still with it, and the database's clock goes on."""
    house, gap = replicas[0], micros(2 * INTERVAL_SECONDS)
    await house.create()
    assert await house.try_claim(claim_request("living", lease_seconds=1.0)) is not None
    async with house.transactions.write() as session:
        await note_pass(session, gap)
    await run(house.store, WATCH_EARLIER)
    async with house.transactions.write() as session:
        watch = await note_pass(session, gap)
        assert watch is not None
        assert not watch.anew
        await session.fetch(STAND_STILL)
        assert await expired_leases(session, watch, 10) == []


async def test_the_first_pass_of_all_replicas_at_once_makes_one_watch(
    replicas: list[House],
) -> None:
    await replicas[0].running()
    await together(*(house.reaper.reap_once() for house in replicas))
    assert len(await rows(replicas[0].store, "SELECT id FROM watch")) == 1


async def test_promoters_of_all_replicas_at_once_promote_each_job_once(
    replicas: list[House],
) -> None:
    store = replicas[0].store
    await together(*(replicas[0].create(run_in_seconds=1_800) for _ in range(300)))
    assert sum((await replicas[0].promoter.promote_once()).queues.values()) == 0
    await run(store, DUE_EARLIER)
    promoted = await together(*(house.promoter.promote_once() for house in replicas))
    assert sum(one.queues["default"] for one in promoted) == 300
    waiting = (await replicas[1].stats.stats()).queues["default"]
    assert (waiting.queued, waiting.delayed) == (300, 0)


async def test_folding_from_all_replicas_at_once_loses_no_count(replicas: list[House]) -> None:
    store = replicas[0].store
    for number in range(30):
        await together(
            *(house.create(queue=f"q{number % 3}") for house in replicas for _ in range(2))
        )
    await together(*(house.claim("w", "q0", "q1") for house in replicas for _ in range(20)))
    before = await replicas[0].stats.stats()
    await run(store, "UPDATE stat_deltas SET at = at - interval '1 hour'")

    async def create_more(house: House) -> None:
        for _ in range(20):
            await house.create(queue="q2")

    await together(
        *(house.stats.fold_once() for house in replicas for _ in range(2)),
        *(create_more(house) for house in replicas),
    )
    after = await replicas[1].stats.stats()
    assert before.totals.created == 180
    assert after.totals.created == 240
    assert after.queues["q2"].queued == before.queues["q2"].queued + 60
    assert (after.queues["q0"], after.queues["q1"]) == (before.queues["q0"], before.queues["q1"])
    old = await rows(
        store, "SELECT id FROM stat_deltas WHERE at < clock_timestamp() - interval '30 min'"
    )
    assert old == []


async def test_counts_that_another_folds_are_left_to_it(
    store_url: str, replicas: list[House]
) -> None:
    """And not asked for again and again until it is done."""
    await replicas[0].create()
    await run(replicas[0].store, "UPDATE stat_deltas SET at = at - interval '1 hour'")
    async with held(store_url, "SELECT id FROM stat_deltas FOR UPDATE"), asyncio.timeout(3):
        assert await together(*(house.stats.fold_once() for house in replicas)) == [0, 0, 0]
    assert await replicas[0].stats.fold_once() == 1


async def test_a_create_whose_job_is_pruned_while_it_is_repeated_makes_a_new_one(
    store_url: str, replicas: list[House], monkeypatch: pytest.MonkeyPatch
) -> None:
    pruning = House(build_store(store_url), ManualClock(real_now()), retention_seconds=0)
    house = replicas[0]
    made = await house.jobs.create(create_call(key="k"))
    await house.reports.report(report(await house.claim("w")))
    find, pruned = job_service.find_jobs, list[int]()

    async def after_the_pruner(session: ReadSession, job_ids: Sequence[JobId]) -> Any:
        pruned.append((await pruning.reaper.reap_once()).pruned)
        return await find(session, job_ids)

    monkeypatch.setattr(job_service, "find_jobs", after_the_pruner)
    again = await house.jobs.create(create_call(key="k"))
    await pruning.close()
    await pruning.store.close()
    assert pruned == [1]
    assert (again.new, again.jobs[0].id > made.jobs[0].id) == (True, True)
    monkeypatch.undo()
    assert not (await house.jobs.create(create_call(key="k"))).new


async def test_pruners_of_all_replicas_at_once_delete_each_job_once(store_url: str) -> None:
    async with running_replicas(store_url, 3) as plain:
        houses = [House(one.store, one.clock, retention_seconds=60) for one in plain]
        jobs = [await houses[0].running(tags=("t",)) for _ in range(3)]
        await together(*(houses[0].create(queue="later") for _ in range(300)))
        jobs += await together(*(houses[0].claim("w", "later") for _ in range(300)))
        await together(*(houses[0].reports.report(report(job)) for job in jobs))
        await run(houses[0].store, "UPDATE jobs SET finished_at = finished_at - interval '1 hour'")
        passes = await together(*(house.reaper.reap_once() for house in houses))
        assert sum(done.pruned for done in passes) == 303
        left = await everything(houses[0].store)
        assert left["jobs"] == left["job_events"] == left["job_tags"] == []
        for house in houses:
            await house.close()


# --- no two wait for each other


async def crossed(url: str, by_id: Awaitable[Any], mixed: Callable[[], Awaitable[Any]]) -> None:
    """Two batches meet on two jobs, and one of them fails unless both lock by id.

    While the job of the smaller id is held, `by_id` comes to wait for it, and then `mixed`, which
    must not hold the other job meanwhile.
    """
    async with held(url, "SELECT id FROM jobs WHERE id = (SELECT min(id) FROM jobs) FOR UPDATE"):
        one = asyncio.ensure_future(by_id)
        await until_waiting(url, 1)
        other = asyncio.ensure_future(mixed())
        await until_waiting(url, 2)
    await asyncio.gather(one, other)


async def two_running(house: House) -> tuple[Job, Job]:
    first, second = await house.create(queue="1"), await house.create(queue="2")
    assert first.id < second.id
    return (
        await house.claim("b", "1", request_id="r"),
        await house.claim("a", "2", request_id="r"),
    )


async def test_heartbeats_and_a_mixed_batch_of_reports_lock_in_one_order(
    store_url: str, replicas: list[House]
) -> None:
    first, second = await two_running(replicas[0])
    beats = together(*(replicas[1].heartbeats.beat(heartbeat(job)) for job in (first, second)))

    async def mixed() -> None:
        await together(
            replicas[2].reports.report(report(first, Failed())),
            replicas[2].reports.report(report(second, Succeeded())),
        )

    await crossed(store_url, beats, mixed)


async def test_pauses_of_the_same_queues_the_other_way_round_do_not_wait_in_a_circle(
    store_url: str, replicas: list[House]
) -> None:
    before = await deadlocks(store_url)

    async def pause(house: House, paused: dict[str, bool]) -> None:
        async with house.transactions.write() as session:
            await set_paused(session, paused)

    for number in range(30):
        crosswise = number % 2 == 0
        await together(
            pause(replicas[0], {"a": crosswise, "b": not crosswise}),
            pause(replicas[1], {"b": crosswise, "a": not crosswise}),
        )
    assert await deadlocks(store_url) == before


async def test_heartbeats_and_repeated_claims_lock_in_one_order(
    store_url: str, replicas: list[House]
) -> None:
    first, second = await two_running(replicas[0])
    beats = together(*(replicas[1].heartbeats.beat(heartbeat(job)) for job in (first, second)))

    async def repeated() -> None:
        claims = [claim_request(w, q, request_id="r") for w, q in (("a", "2"), ("b", "1"))]
        jobs = await together(*(replicas[2].try_claim(claim) for claim in claims))
        assert [job and job.id for job in jobs] == [second.id, first.id]

    await crossed(store_url, beats, repeated)


class Crowd:
    """Everything that can happen to a few jobs, at once and from every replica."""

    def __init__(self, houses: Sequence[House], ids: Sequence[JobId], seed: int) -> None:
        self.houses = houses
        self.chance = random.Random(seed)  # noqa: S311 - no secret
        self.ids = ids
        self.leases: list[Job] = []
        self.requests: list[ClaimRequest] = []

    def calls(self, house: House) -> list[Coroutine[Any, Any, Any]]:
        """A batch of each operation over the same jobs, each in an order of its own."""
        ends = [
            *(Succeeded(), Failed(retry_in_seconds=0), Failed(retryable=False)),
            *(Released(counted=False), Obeyed()),
        ]
        pick, sample = self.chance.choice, self.chance.sample
        return [
            *(house.heartbeats.beat(heartbeat(it)) for it in sample(self.leases, 12)),
            *(house.reports.report(report(it, pick(ends))) for it in sample(self.leases, 12)),
            *(house.operations.cancel(CancelCall(it, pick([True, False]))) for it in self.some(4)),
            *(house.operations.retry(RetryCall(it, again=True)) for it in self.some(6)),
            *(house.try_claim(it) for it in sample(self.requests, 6)),
        ]

    def some(self, number: int) -> list[JobId]:
        return self.chance.sample(self.ids, number)

    async def round(self) -> None:
        calls = [call for house in self.houses for call in self.calls(house)]
        self.chance.shuffle(calls)
        said = await outcomes(*calls, *(house.reaper.reap_once() for house in self.houses))
        wrong = [one for one in said if isinstance(one, BaseException)]
        assert [one for one in wrong if not isinstance(one, LeaseLost | InvalidTransition)] == []

    async def run_all(self) -> None:
        """Bring every job back to its next attempt."""
        house = self.houses[0]
        found = await rows(house.store, "SELECT id, status, cancel_requested FROM jobs")
        for row in found:
            if row["cancel_requested"] and row["status"] == Status.RUNNING:
                await house.operations.cancel(CancelCall(row["id"], force=True))
        await outcomes(*(house.operations.retry(RetryCall(it, again=True)) for it in self.ids))
        waiting = await rows(house.store, "SELECT id FROM jobs WHERE status = 'queued'")
        requests = [
            claim_request(f"w{self.chance.randrange(5)}", request_id=f"{self.chance.random()}")
            for _ in waiting
        ]
        assert None not in await together(*(house.try_claim(it) for it in requests))
        async with house.transactions.read() as session:
            jobs = await find_jobs(session, self.ids)
        self.leases = list(jobs.values())
        held = await rows(house.store, "SELECT locked_by, request_id FROM jobs")
        self.requests = [
            ClaimRequest(row["locked_by"], request_id=row["request_id"]) for row in held
        ]


@pytest.mark.parametrize(
    "rounds", [25, pytest.param(200, marks=[pytest.mark.slow, pytest.mark.timeout(300)])]
)
async def test_nothing_that_meets_on_the_same_jobs_waits_in_a_circle(
    store_url: str, rounds: int
) -> None:
    before = await deadlocks(store_url)
    async with running_replicas(store_url, 3) as houses:
        house = houses[0]
        created = await together(*(house.create(max_retries=1_000) for _ in range(30)))
        ids = [job.id for job in created]
        crowd = Crowd(houses, ids, seed=random.getrandbits(20))
        for _ in range(rounds):
            await crowd.run_all()
            await crowd.round()
        steps = await rows(house.store, "SELECT * FROM job_events ORDER BY id")
        jobs = await rows(house.store, "SELECT id, status FROM jobs")
        stats = await house.stats.stats()
    # The server learns of each one's deadlocks when its connections end.
    assert await deadlocks(store_url) == before
    place: dict[JobId, str | None] = dict.fromkeys(ids)
    for step in steps:
        assert step["from_status"] == place[step["job_id"]]
        place[step["job_id"]] = step["to_status"]
    assert place == {row["id"]: row["status"] for row in jobs}
    claimed = [step["lease_token"] for step in steps if step["action"] == "claim"]
    ended = [step["lease_token"] for step in steps if step["from_status"] == "running"]
    assert len(claimed) == len(set(claimed))
    assert len(ended) == len(set(ended))
    assert stats.queues["default"].running == list(place.values()).count("running")
    assert stats.queues["default"].queued == list(place.values()).count("queued")


# --- clocks that are wrong


def misled(url: str, seconds: float) -> House:
    """A replica whose own clock goes wrong by so much."""
    store = build_store(url)
    store.clock = clock = ManualClock(Micros(real_now() + micros(seconds)))
    return House(store, clock)


WRONG = pytest.mark.parametrize("seconds", [600.0, -600.0], ids=["ahead", "behind"])


async def database_now(house: House) -> Micros:
    (row,) = await rows(house.store, "SELECT clock_timestamp() AS now")
    return row["now"]


@asynccontextmanager
async def closing(house: House) -> AsyncGenerator[House]:
    try:
        yield house
    finally:
        await house.close()
        await house.store.close()


@WRONG
async def test_leases_are_as_long_as_they_are_by_the_databases_clock(
    store_url: str, seconds: float
) -> None:
    async with closing(misled(store_url, seconds)) as house:
        before = await database_now(house)
        job = await house.running(lease_seconds=60)
        state = await house.heartbeats.beat(heartbeat(job))
        later = await house.create(run_in_seconds=60)
        after = await database_now(house)
        assert job.lease_expires_at is not None
        assert before + micros(60) <= job.lease_expires_at < state.lease_expires_at
        assert state.lease_expires_at <= after + micros(60)
        assert before + micros(60) <= later.run_at <= after + micros(60)
        assert before <= job.created_at <= after
        assert before <= (await house.stats.stats()).now <= real_now()
        (worker,) = await house.workers.all()
        assert before <= worker.last_seen_at <= await database_now(house)


@WRONG
async def test_a_wrong_clock_takes_no_lease_early_and_leaves_none_on(
    store_url: str, replicas: list[House], seconds: float
) -> None:
    async with closing(misled(store_url, seconds)) as house:
        living = await replicas[0].running(lease_seconds=300)
        await replicas[0].create(run_in_seconds=300)
        await replicas[0].reaper.reap_once()
        await run(house.store, WATCH_EARLIER)
        assert await house.reaper.reap_once() == Pass()
        assert not (await house.promoter.promote_once()).queues
        state = await replicas[1].heartbeats.beat(heartbeat(living))
        assert state.lease_expires_at > await database_now(house) + micros(290)
        await let_all_leases_run_out(house.store)
        await run(house.store, DUE_EARLIER)
        assert await house.reaper.reap_once() == Pass(requeued=1)
        assert (await house.promoter.promote_once()).queues == Counter(default=1)
        with pytest.raises(LeaseLost):
            await replicas[1].heartbeats.beat(heartbeat(living))


@WRONG
async def test_a_wrong_clock_does_not_make_the_watch_begin_anew(
    store_url: str, replicas: list[House], seconds: float
) -> None:
    async with closing(misled(store_url, seconds)) as house:
        await replicas[0].running()
        await replicas[0].reaper.reap_once()
        (before,) = await rows(house.store, "SELECT since FROM watch")
        for replica in (house, replicas[0], house):
            await replica.reaper.reap_once()
        (after,) = await rows(house.store, "SELECT since FROM watch")
        assert after == before


async def test_of_two_that_prune_the_last_jobs_of_a_call_one_takes_the_key(
    store_url: str, replicas: list[House]
) -> None:
    """Each must not leave it to the other, since each sees the other's job still there."""
    call = CreateCall([new_job(), new_job()], "k", "hash")
    made = (await replicas[0].jobs.create(call)).jobs
    for job in made:
        await replicas[0].reports.report(report(await replicas[0].claim("w", job.queue)))
    assert len(await rows(replicas[0].store, "SELECT * FROM idempotency_keys")) == 1

    async def prune(house: House) -> int:
        async with house.transactions.write() as session:
            return await prune_finished(session, 0, 1)

    async with held(store_url, "SELECT * FROM job_events ORDER BY id LIMIT 1 FOR UPDATE"):
        both = asyncio.ensure_future(together(prune(replicas[0]), prune(replicas[1])))
        await until_waiting(store_url, 2)
    assert await both == [1, 1]
    assert await rows(replicas[0].store, "SELECT * FROM jobs") == []
    assert await rows(replicas[0].store, "SELECT * FROM idempotency_keys") == []
