"""The relay between replicas on PostgreSQL: who waits on one hears of what was done on another."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
from sqlalchemy import text

from compute_orchestrator.db.engine import Store, build_store
from compute_orchestrator.domain.errors import StoreUnavailable
from compute_orchestrator.domain.values import JobId
from compute_orchestrator.services.relay import LONGEST_MESSAGE_BYTES, Relay
from tests.builders import claim_request, report
from tests.clocks import ManualClock
from tests.services.fakes import called
from tests.store.house import House
from tests.stores import only_postgresql

LONG = 60.0


new_store = only_postgresql


class Replica:
    """One server's services, and its relay at work."""

    def __init__(self, store: Store, clock: ManualClock) -> None:
        self.store = store
        self.house = House(store, clock)
        self.relay = Relay(store, self.house.wakeups)
        self.house.wakeups.tell_others = self.relay.tell
        self.relaying = asyncio.create_task(self.relay.relay_once())

    async def listens(self) -> None:
        await until(self.house.wakeups.missed.is_set)
        self.house.wakeups.missed.clear()


async def until(done: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not done():
            await called()


@asynccontextmanager
async def replica(url: str, clock: ManualClock) -> AsyncGenerator[Replica]:
    store = build_store(url, clock=clock)
    one = Replica(store, clock)
    try:
        await one.listens()
        yield one
    finally:
        one.relaying.cancel()
        await asyncio.wait([one.relaying])
        await one.house.close()
        await store.close()


@pytest.fixture
async def pair(store_url: str, clock: ManualClock) -> AsyncGenerator[tuple[Replica, Replica]]:
    async with AsyncExitStack() as stack:
        one = await stack.enter_async_context(replica(store_url, clock))
        other = await stack.enter_async_context(replica(store_url, clock))
        yield one, other


async def test_a_job_created_on_one_replica_is_claimed_by_who_waits_on_another(
    pair: tuple[Replica, Replica],
) -> None:
    one, other = pair
    gone = asyncio.get_running_loop().create_future()
    waiting = asyncio.create_task(one.house.claim_patiently(claim_request("w", "q"), LONG, gone))
    await until(lambda: one.house.wakeups.awaited_queues() == {"q": 1})
    created = await other.house.create(queue="q")
    async with asyncio.timeout(20):
        job = await waiting
    assert job is not None
    assert job.id == created.id

    watching = asyncio.create_task(other.house.jobs.get_patiently(created.id, LONG, gone))
    await until(lambda: created.id in other.house.wakeups.awaited_jobs())
    await one.house.reports.report(report(job))
    async with asyncio.timeout(20):
        assert (await watching).status == "succeeded"


async def test_what_has_its_waiter_here_is_told_to_nobody(pair: tuple[Replica, Replica]) -> None:
    one, other = pair
    told: list[object] = []
    other.house.wakeups.tell_others = lambda work, finished: told.append((dict(work), finished))
    gone = asyncio.get_running_loop().create_future()
    here = asyncio.create_task(other.house.claim_patiently(claim_request("w"), LONG, gone))
    await until(lambda: other.house.wakeups.awaited_queues() == {"default": 1})
    await other.house.create()
    assert await here is not None
    assert told == []
    await other.house.create()
    assert told == [({"default": 1}, ())]
    assert one.house.wakeups.awaited_queues() == {}


async def test_more_than_a_message_can_hold_makes_the_others_look(
    pair: tuple[Replica, Replica],
) -> None:
    one, other = pair
    many = [JobId(10**15 + number) for number in range(LONGEST_MESSAGE_BYTES // 16)]
    other.relay.tell({"q": 1}, many)
    await until(one.house.wakeups.missed.is_set)
    assert not other.house.wakeups.missed.is_set(), "nobody hears itself"


async def test_a_connection_that_ends_is_noticed_without_a_word(
    pair: tuple[Replica, Replica],
) -> None:
    one, _ = pair
    async with one.store.writing() as (session, _session):
        # Whoever listens: both relays, and no other connection.
        await session.execute(
            text(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE query LIKE 'LISTEN%' OR query LIKE '%pg_notify%'"
                "   AND pid <> pg_backend_pid()"
            )
        )
    async with asyncio.timeout(20):
        with pytest.raises(StoreUnavailable):
            await one.relaying
    again = asyncio.create_task(one.relay.relay_once())
    await one.listens()
    again.cancel()
    await asyncio.wait([again])
