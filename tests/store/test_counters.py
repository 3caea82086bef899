"""The counters are kept, not counted: after any history they are what a recount brings."""

from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress

from hypothesis import given, settings
from hypothesis import strategies as st

from compute_orchestrator.db.engine import Store
from compute_orchestrator.db.statements.stats import fold_deltas
from compute_orchestrator.db.statements.trail import Move, Sums, write_deltas
from compute_orchestrator.domain.errors import Conflict
from compute_orchestrator.domain.job import Job
from compute_orchestrator.domain.lifecycle import FINAL
from compute_orchestrator.domain.report import ReportedOutcome, Succeeded
from compute_orchestrator.domain.retry import Failed, Obeyed, Released
from compute_orchestrator.domain.values import JobId, micros
from compute_orchestrator.services.operations import CancelCall, RetryCall
from compute_orchestrator.services.stats import LAST_MINUTE_SECONDS, Stats, Totals, Waiting
from tests.builders import claim_request, report
from tests.store.house import House, Rows, everything, rows, run
from tests.store.undoing import one_store

QUEUES = ("a", "b")


class History:
    """What happens to a store, and the leases that its workers remember."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.jobs: list[JobId] = []
        self.leases: list[Job] = []

    async def create(self, chance: int) -> None:
        job = await self.house.create(
            queue=QUEUES[chance % 2],
            run_in_seconds=(0, 0, 3, 50)[chance % 4],
            max_retries=chance % 3,
        )
        self.jobs.append(job.id)

    async def claim(self, chance: int) -> None:
        request = claim_request("w", QUEUES[chance % 2], lease_seconds=(1, 40)[chance % 2])
        job = await self.house.try_claim(request)
        if job is not None:
            self.leases.append(job)

    def lease(self, chance: int) -> Job | None:
        return self.leases[chance % len(self.leases)] if self.leases else None

    async def report(self, chance: int) -> None:
        outcomes: list[ReportedOutcome] = [
            Succeeded(),
            Failed(retry_in_seconds=0),
            Failed(retry_in_seconds=4),
            Failed(retryable=False),
            Released(),
            Obeyed(),
        ]
        if lease := self.lease(chance):
            await self.house.reports.report(report(lease, outcomes[chance % len(outcomes)]))

    async def hand_back(self, chance: int) -> None:
        if lease := self.lease(chance):
            await self.house.claims.hand_back([lease])

    async def cancel(self, chance: int) -> None:
        if self.jobs:
            job_id = self.jobs[chance % len(self.jobs)]
            await self.house.operations.cancel(CancelCall(job_id, force=chance % 2 == 0))

    async def retry(self, chance: int) -> None:
        if self.jobs:
            job_id = self.jobs[chance % len(self.jobs)]
            await self.house.operations.retry(RetryCall(job_id, again=True))

    async def pass_time(self, chance: int) -> None:
        self.house.clock.move((1, 4, 45, LAST_MINUTE_SECONDS + 1)[chance % 4])
        await self.house.promoter.promote_once()
        await self.house.reaper.reap_once()
        await self.house.stats.fold_once()


HAPPENINGS: list[Callable[[History, int], Awaitable[None]]] = [
    *[History.create, History.claim, History.report] * 2,
    *(History.hand_back, History.cancel, History.retry, History.pass_time),
]


async def recount(store: Store, now: int) -> tuple[dict[str, Waiting], Totals, Totals]:
    """What the jobs and their trails say themselves."""
    waiting: dict[str, Waiting] = {}
    for job in await rows(store, "SELECT queue, status, delayed FROM jobs"):
        place = waiting.setdefault(job["queue"], Waiting())
        if job["status"] not in FINAL:
            name = "delayed" if job["delayed"] else job["status"]
            setattr(place, name, getattr(place, name) + 1)
    steps = await rows(store, "SELECT action, to_status, at FROM job_events")
    recent = [step for step in steps if step["at"] > now - micros(60)]
    return waiting, total(steps), total(recent)


def total(steps: Rows) -> Totals:
    made = Counter((step["action"], step["to_status"]) for step in steps)
    ended = Counter[str]()
    for (_, to_status), number in made.items():
        ended[to_status] += number
    return Totals(
        created=made["create", "queued"],
        succeeded=ended["succeeded"],
        failed=ended["failed"],
        exhausted=ended["exhausted"],
        cancelled=ended["cancelled"],
        retried=made["fail", "queued"] + made["lose", "queued"],
        lost=sum(number for (action, _), number in made.items() if action == "lose"),
    )


def shown(stats: Stats) -> tuple[dict[str, Waiting], Totals, Totals]:
    return dict(stats.queues), stats.totals, stats.last_minute


@settings(one_store, max_examples=25)
@given(
    st.lists(st.tuples(st.sampled_from(HAPPENINGS), st.integers(0, 11)), min_size=8, max_size=30)
)
async def test_counters_are_what_a_recount_brings(
    store: Store,
    house: House,
    happenings: list[tuple[Callable[[History, int], Awaitable[None]], int]],
) -> None:
    for table in ("jobs", "job_events", "stats", "stat_deltas", "watch"):
        await run(store, f"DELETE FROM {table}")  # noqa: S608 - from the line above
    history = History(house)
    for happening, chance in happenings:
        with suppress(Conflict):
            await happening(history, chance)
    assert shown(await house.stats.stats()) == await recount(store, house.clock.now())


async def test_folding_changes_no_sum_and_keeps_the_last_minute_apart(
    store: Store, house: House
) -> None:
    for _ in range(3):
        await house.running()
        house.clock.move(30)
    before = await house.stats.stats()
    assert await house.stats.fold_once() == 4
    assert shown(await house.stats.stats()) == shown(before)
    assert len(await rows(store, "SELECT * FROM stat_deltas")) == 2
    sums = await rows(store, "SELECT action, count FROM stats ORDER BY action")
    assert sums == [{"action": "claim", "count": 2}, {"action": "create", "count": 2}]


async def test_folding_where_nothing_is_old_changes_nothing(store: Store, house: House) -> None:
    await house.running()
    house.clock.move(LAST_MINUTE_SECONDS - 0.000001)
    before = await everything(store)
    assert await house.stats.fold_once() == 0
    assert await everything(store) == before
    assert len(before["stat_deltas"]) == 2


async def test_one_transaction_folds_only_so_many(store: Store, house: House) -> None:
    for _ in range(5):
        await house.create()
    house.clock.move(LAST_MINUTE_SECONDS)
    for folded, left in ((2, 3), (2, 1), (1, 0), (0, 0)):
        async with house.transactions.write() as session:
            assert await fold_deltas(session, micros(LAST_MINUTE_SECONDS), 2) == folded
        assert len(await rows(store, "SELECT * FROM stat_deltas")) == left
    assert await rows(store, "SELECT count FROM stats") == [{"count": 5}]


async def test_one_row_a_transaction_queue_and_move(store: Store, house: House) -> None:
    queues = Counter({"a": 3, "b": 2})
    async with house.transactions.write() as session:
        await write_deltas(
            session,
            {
                Move(queue, "claim", "queued", "running"): Sums(n, waited_seconds=n / 2)
                for queue, n in queues.items()
            },
        )
    sums = await rows(
        store, "SELECT queue, count, waited_seconds, ran_seconds FROM stat_deltas ORDER BY queue"
    )
    assert sums == [
        {"queue": "a", "count": 3, "waited_seconds": 1.5, "ran_seconds": 0},
        {"queue": "b", "count": 2, "waited_seconds": 1, "ran_seconds": 0},
    ]


async def test_waiting_and_running_times_are_summed(store: Store, house: House) -> None:
    await house.create()
    house.clock.move(5)
    job = await house.claim()
    house.clock.move(7)
    await house.reports.report(report(job))
    sums = await rows(
        store, "SELECT action, waited_seconds, ran_seconds FROM stat_deltas ORDER BY id"
    )
    assert sums == [
        {"action": "create", "waited_seconds": 0, "ran_seconds": 0},
        {"action": "claim", "waited_seconds": 5, "ran_seconds": 0},
        {"action": "succeed", "waited_seconds": 0, "ran_seconds": 7},
    ]


async def test_a_job_that_was_to_run_long_ago_waited_since_it_was_created(
    store: Store, house: House
) -> None:
    await house.create(run_at=0)
    house.clock.move(5)
    await house.claim()
    (claimed,) = await rows(store, "SELECT waited_seconds FROM stat_deltas WHERE action = 'claim'")
    assert claimed == {"waited_seconds": 5}


async def test_the_oldest_claimable_job_of_each_queue_is_told(house: House) -> None:
    for queue, priority, wait in (("a", 5, 3), ("a", -5, 9), ("a", 5, 1), ("b", 0, 4)):
        await house.create(queue=queue, priority=priority, run_at=house.clock.now() - micros(wait))
    await house.create(queue="delayed", run_in_seconds=10)
    await house.running(queue="running")
    house.clock.move(1)
    stats = await house.stats.stats()
    assert stats.oldest_queued_seconds == {"a": 10, "b": 5}
    assert stats.now == house.clock.now()


async def test_an_empty_store_has_nothing_to_tell(house: House) -> None:
    stats = await house.stats.stats()
    assert shown(stats) == ({}, Totals(), Totals())
    assert stats.oldest_queued_seconds == {}
