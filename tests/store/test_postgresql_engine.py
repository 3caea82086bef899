"""The PostgreSQL store: values come back exactly, readers only read, errors are told apart, and
neither a cancelled caller nor a lost connection costs the pool anything.
"""

import asyncio
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import asynccontextmanager, closing, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from compute_orchestrator.db import postgresql
from compute_orchestrator.db.engine import Store, build_store
from compute_orchestrator.db.postgresql import LONGEST_TRANSACTION, SESSION_SETTINGS
from compute_orchestrator.db.sessions import Statement, WriteSession
from compute_orchestrator.db.statements.create import create_jobs
from compute_orchestrator.db.statements.read import find_jobs
from compute_orchestrator.domain.errors import StoreUnavailable, UnsupportedStore
from compute_orchestrator.domain.values import JobId, JsonText, Micros
from compute_orchestrator.services.transactions import Transactions
from compute_orchestrator.services.wakeups import Wakeups
from tests.builders import heartbeat, new_job
from tests.clocks import START, ManualClock
from tests.postgres import Postgres
from tests.services.fakes import called
from tests.store.house import House, job_row, rows, run
from tests.stores import only_postgresql

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
INSERT = "INSERT INTO queues (name, paused) VALUES ('q', 0)"
COUNT = "SELECT count(*) AS number FROM queues"
POOL_SIZE = 2
LOOKS = 5_000
"""Questions to the server until what must come is there."""


new_store = only_postgresql


@pytest.fixture
async def other(store_url: str) -> AsyncGenerator[asyncpg.Connection]:
    """A connection that is not the store's."""
    async with connected(store_url) as connection:
        yield connection


@pytest.fixture
async def pooled(store_url: str) -> AsyncGenerator[Store]:
    """A store of few connections, so that a lost one is missed."""
    store = build_store(store_url, postgres_pool_size=POOL_SIZE)
    try:
        yield store
    finally:
        await store.close()


@asynccontextmanager
async def connected(url: str) -> AsyncGenerator[asyncpg.Connection]:
    connection = await asyncpg.connect(url)
    try:
        yield connection
    finally:
        await connection.close()


@asynccontextmanager
async def locked(url: str, table: str) -> AsyncGenerator[None]:
    """Nobody else reads or writes this table. Who asks whether they wait needs a connection of its
    own: inside a transaction the server's statistics stand still.
    """
    async with connected(url) as holder, holder.transaction():
        await holder.execute(f"LOCK TABLE {table}")
        yield


def transactions(store: Store) -> Transactions:
    return Transactions(store, Wakeups())


def micros_of(moment: datetime) -> Micros:
    return Micros((moment - EPOCH) // timedelta(microseconds=1))


# --- values


MOMENTS = [
    datetime(1, 1, 1, tzinfo=UTC),
    datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
    EPOCH,
    datetime(1999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
    datetime(2000, 1, 1, tzinfo=UTC),
    datetime(2026, 11, 18, 4, 5, 6, 789_012, tzinfo=UTC),
    datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
]


@pytest.mark.parametrize("moment", MOMENTS, ids=str)
async def test_a_time_goes_in_and_comes_out_to_the_microsecond(
    store: Store, moment: datetime
) -> None:
    sql = """
        SELECT CAST(:it AS timestamptz) AS it,
               to_char(CAST(:it AS timestamptz), 'YYYY-MM-DD HH24:MI:SS.US') AS shown
    """
    (row,) = await rows(store, sql, it=micros_of(moment))
    assert row["it"] == micros_of(moment)
    assert row["shown"] == moment.replace(tzinfo=None).isoformat(" ", "microseconds")


@pytest.mark.parametrize("moment", MOMENTS, ids=str)
async def test_a_time_inside_a_batch_is_as_exact(
    store: Store, house: House, moment: datetime
) -> None:
    job = await house.create(run_at=micros_of(moment))
    assert job.run_at == (await job_row(store, job.id))["run_at"] == micros_of(moment)


async def test_the_time_is_the_databases_unless_one_is_told(store_url: str) -> None:
    """And with it the time of a statement, not of the transaction's start."""
    clock, sql = ManualClock(), Statement(sqlite="", postgresql=READ_CLOCK)
    told, untold = build_store(store_url, clock=clock), build_store(store_url)
    async with told.writing() as (_, session):
        assert (await session.fetch(sql))[0][0] == session.now == START
    async with untold.writing() as (_, session):
        assert session.now is None
        first, began = (await session.fetch(sql))[0]
        second, still = (await session.fetch(sql))[0]
        assert began == still < first < second
    await told.close()
    await untold.close()


READ_CLOCK = "SELECT coalesce(CAST(:now AS timestamptz), clock_timestamp()), now()"


@pytest.mark.parametrize(
    "payload",
    [
        '{"z":1,"a":{"y":2,"b":3}}',
        '{"twice":1,"twice":2}',
        r'"\u0000\u00e9\ud83d\ude00\/"',
        '"é😀"',
        "[1e400,-0.0,1.10,9223372036854775807,0.1000000000000000055511151231257827]",
        '[ 1 ,\t{ "spaces" : "kept" } ]',
        "null",
    ],
)
async def test_json_comes_back_as_the_text_that_it_was(
    store: Store, house: House, payload: str
) -> None:
    job = await house.create(payload=JsonText(payload))
    assert job.payload == (await job_row(store, job.id))["payload"] == payload


# --- sessions


@pytest.mark.parametrize("kind", ["reading", "writing"])
async def test_every_session_has_the_settings_that_keep_a_frozen_replica_harmless(
    pooled: Store, kind: str
) -> None:
    async with getattr(pooled, kind)() as (session, _):
        asked = {
            name: (await session.execute(text(f"SHOW {name}"))).scalar()
            for name in SESSION_SETTINGS
        }
    assert asked == SESSION_SETTINGS
    assert {"idle_in_transaction_session_timeout", "lock_timeout", "timezone"} <= asked.keys()


async def test_a_writer_waits_for_the_other_whatever_isolation_the_database_is_set_to(
    store_url: str, other: asyncpg.Connection
) -> None:
    database = await other.fetchval("SELECT current_database()")
    setting = "default_transaction_isolation"
    await other.execute(f"ALTER DATABASE {database} SET {setting} = 'serializable'")
    store = build_store(store_url)
    try:
        async with store.writing() as (session, _):
            isolation = (await session.execute(text("SHOW transaction_isolation"))).scalar()
    finally:
        await store.close()
        await other.execute(f"ALTER DATABASE {database} RESET {setting}")
    assert isolation == "read committed"


async def test_a_reader_can_not_write(store: Store) -> None:
    async with store.reading() as (session, _):
        with pytest.raises(DBAPIError, match="read-only") as refused:
            await session.execute(text(INSERT))
    assert not store.is_fault_of_data(refused.value)
    assert await rows(store, COUNT) == [{"number": 0}]


async def test_a_reader_sees_one_moment_and_keeps_no_writer_out(store: Store) -> None:
    async with store.reading() as (reader, _):
        assert (await reader.execute(text(COUNT))).scalar() == 0
        await run(store, INSERT)
        assert (await reader.execute(text(COUNT))).scalar() == 0
    async with store.reading() as (reader, _):
        assert (await reader.execute(text(COUNT))).scalar() == 1


async def test_a_writer_sees_what_others_committed_meanwhile(store: Store) -> None:
    """Who waited for a row must be able to read what became of it."""
    async with store.writing() as (writer, _):
        assert (await writer.execute(text(COUNT))).scalar() == 0
        await run(store, INSERT)
        assert (await writer.execute(text(COUNT))).scalar() == 1


async def test_a_connection_that_read_can_write_again(store_url: str) -> None:
    store = build_store(store_url, postgres_pool_size=1)
    async with store.reading() as (session, _):
        await session.execute(text(COUNT))
    await run(store, INSERT)
    assert await rows(store, COUNT) == [{"number": 1}]
    await store.close()


async def test_what_was_not_committed_is_gone(store: Store) -> None:
    async with store.writing() as (session, _):
        await session.execute(text(INSERT))
    assert await rows(store, COUNT) == [{"number": 0}]


# --- what the store is


async def test_a_server_that_is_too_old_is_refused(
    pooled: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgresql, "OLDEST_POSTGRESQL", 99)
    with pytest.raises(UnsupportedStore, match=r"PostgreSQL \d\d; the store needs 99 or newer"):
        await pooled.open()


@pytest.mark.parametrize("level", ["on", "local", "off"])
async def test_the_store_knows_whether_a_power_cut_can_lose_a_commit(
    other: asyncpg.Connection, pooled: Store, level: str
) -> None:
    database = await other.fetchval("SELECT current_database()")
    synced = await other.fetchval("SELECT current_setting('fsync')") == "on"
    await other.execute(f"ALTER DATABASE {database} SET synchronous_commit = {level}")
    await pooled.open()
    await other.execute(f"ALTER DATABASE {database} RESET synchronous_commit")
    assert pooled.synchronous == (level if synced else "fsync off")
    assert pooled.durable is (synced and level != "off")


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+asyncpg"])
async def test_each_way_to_write_the_url_is_understood(store_url: str, scheme: str) -> None:
    store = build_store(store_url.replace("postgresql:", f"{scheme}:"))
    await store.open()
    assert (store.dialect, store.one_writer, store.migrates_itself) == ("postgresql", False, False)
    await store.close()


# --- errors

FAULTS = ["21000", "22000", "22003", "22P02", "22P05", "23502", "23505", "23514", "44000"]
TROUBLES = [
    *("08000", "08003", "08006", "08P01"),  # the connection
    *("25006", "25P02", "25P03"),  # the transaction
    *("40001", "40P01"),  # undone for the sake of another
    *("53000", "53100", "53200", "53300"),  # out of something
    *("55000", "55P03"),  # held by another
    *("57014", "57P01", "57P03", "58030", "XX000"),  # the server itself
    *("42P01", "0A000", "3D000", "28P01"),  # not the database that it should be
]


def raising(state: str) -> Statement:
    """The server itself fails in this way."""
    sql = f"DO $$ BEGIN RAISE EXCEPTION 'from a test' USING ERRCODE = '{state}'; END $$"
    return Statement(sqlite="", postgresql=sql)


@pytest.mark.parametrize("state", FAULTS)
async def test_a_fault_of_the_data_passes_through(store: Store, state: str) -> None:
    with pytest.raises(DBAPIError, match="from a test") as raised:
        async with transactions(store).write() as session:
            await session.run(raising(state))
    assert store.is_fault_of_data(raised.value)


@pytest.mark.parametrize("state", TROUBLES)
async def test_trouble_of_the_server_is_a_store_that_is_not_available(
    store: Store, state: str, caplog: pytest.LogCaptureFixture
) -> None:
    for transaction in (transactions(store).read, transactions(store).write):
        caplog.clear()
        with pytest.raises(StoreUnavailable) as away:
            async with transaction() as session:
                await session.fetch(raising(state))
        assert "from a test" in caplog.text
        assert "from a test" not in away.value.detail


async def fail_in_a_savepoint(session: WriteSession) -> None:
    async with session.savepoint():
        await create_jobs(session, [new_job("inside")])
        await session.run(raising("23505"))


async def test_a_fault_can_be_undone_to_a_savepoint_and_the_transaction_goes_on(
    store: Store,
) -> None:
    async with transactions(store).write() as session:
        await create_jobs(session, [new_job("before")])
        with pytest.raises(DBAPIError, match="from a test"):
            await fail_in_a_savepoint(session)
        await create_jobs(session, [new_job("after")])
    names = await rows(store, "SELECT name FROM jobs ORDER BY id")
    assert [row["name"] for row in names] == ["before", "after"]


async def test_real_faults_of_data_are_known_as_such(store: Store) -> None:
    async with store.writing() as (writer, _):
        await writer.execute(text(INSERT))
        with pytest.raises(IntegrityError) as twice:
            await writer.execute(text(INSERT))
    for sql in ("SELECT CAST('{' AS json)", "SELECT 1 / 0", "SELECT CAST('300000' AS smallint)"):
        async with store.writing() as (writer, _):
            with pytest.raises(DBAPIError) as bad:
                await writer.execute(text(sql))
        assert store.is_fault_of_data(bad.value), sql
    assert store.is_fault_of_data(twice.value)
    assert not store.is_fault_of_data(ValueError())
    assert not store.is_fault_of_data(OSError())


async def test_a_lock_that_does_not_come_is_trouble(store: Store, store_url: str) -> None:
    async def write() -> None:
        async with transactions(store).write() as session:
            for sql in ("SET LOCAL lock_timeout = 1", INSERT):
                await session.run(Statement(sqlite="", postgresql=sql))

    async with locked(store_url, "queues"):
        with pytest.raises(StoreUnavailable):
            await write()
    assert await rows(store, COUNT) == [{"number": 0}]


# --- connections


@contextmanager
def a_port_where_nobody_listens() -> Generator[int]:
    with closing(socket.socket()) as kept:
        kept.bind(("127.0.0.1", 0))
        yield kept.getsockname()[1]


async def find(store: Store) -> None:
    async with transactions(store).read() as session:
        await find_jobs(session, [JobId(1)])


async def create(store: Store) -> None:
    async with transactions(store).write() as session:
        await create_jobs(session, [new_job()])


CALLS = pytest.mark.parametrize("call", [find, create], ids=["read", "write"])
Call = Callable[[Store], Awaitable[None]]


@CALLS
async def test_a_server_that_is_not_there_is_a_store_that_is_not_available(call: Call) -> None:
    with a_port_where_nobody_listens() as port:
        store = build_store(f"postgresql://orc@127.0.0.1:{port}/orc")
        with pytest.raises(StoreUnavailable):
            await call(store)
        await store.close()


@CALLS
async def test_a_database_that_is_not_there_or_lets_nobody_in_is_not_available(
    pooled: Store, store_url: str, postgres: Postgres, call: Call
) -> None:
    nowhere = build_store(postgres.url_of("orc_nowhere"))
    with pytest.raises(StoreUnavailable):
        await call(nowhere)
    await nowhere.close()
    database = store_url.partition("?")[0].rpartition("/")[2]
    async with connected(postgres.url_of("postgres")) as owner:
        await owner.execute(f"ALTER DATABASE {database} ALLOW_CONNECTIONS false")
        with pytest.raises(StoreUnavailable):
            await call(pooled)
        await owner.execute(f"ALTER DATABASE {database} ALLOW_CONNECTIONS true")
    await call(pooled)


@CALLS
async def test_a_pool_without_a_free_connection_is_a_store_that_is_not_available(
    store_url: str, monkeypatch: pytest.MonkeyPatch, call: Call
) -> None:
    monkeypatch.setattr(postgresql, "POOL_TIMEOUT_SECONDS", 0.01)
    store = build_store(store_url, postgres_pool_size=1)
    async with store.reading() as (session, _):
        await session.execute(text(COUNT))
        with pytest.raises(StoreUnavailable):
            await call(store)
    await call(store)
    await store.close()


OURS = f"""
    FROM pg_stat_activity
   WHERE datname = current_database()
     AND application_name = '{SESSION_SETTINGS["application_name"]}'
"""


async def kill_all(other: asyncpg.Connection) -> None:
    """End every connection that the store has, as a restart of the server does."""
    pids = [row["pid"] for row in await other.fetch(f"SELECT pid {OURS}")]
    assert pids
    for pid in pids:
        await other.execute(f"SELECT pg_terminate_backend({pid})")
    await until(other, f"SELECT count(*) = 0 {OURS} AND pid = ANY (ARRAY{pids})")


async def until(other: asyncpg.Connection, question: str) -> None:
    """Ask the server until it says yes."""
    for _ in range(LOOKS):
        if await other.fetchval(question):
            return
    pytest.fail(f"never came true: {question}")


async def use_every_connection(store: Store) -> None:
    """Fails where one of the pool is lost: a pool's connections all work at the same time."""
    together = asyncio.Barrier(POOL_SIZE)

    async def use() -> None:
        async with store.writing() as (session, _):
            await session.execute(text(COUNT))
            await together.wait()

    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        for _ in range(POOL_SIZE):
            group.create_task(use())


@CALLS
async def test_after_connections_were_lost_at_most_one_call_asks_again(
    pooled: Store, other: asyncpg.Connection, call: Call
) -> None:
    """None where the driver has heard of it."""
    for _ in range(2):
        await use_every_connection(pooled)
        await kill_all(other)
        with suppress(StoreUnavailable):
            await call(pooled)
        await call(pooled)
        await use_every_connection(pooled)


async def test_connections_that_the_database_closed_cost_no_call(
    pooled: Store, other: asyncpg.Connection
) -> None:
    async with pooled.reading() as (first, _), pooled.reading() as (second, _):
        known = [await driver_connection(first), await driver_connection(second)]
    await kill_all(other)
    while not all(connection.is_closed() for connection in known):
        await other.fetchval("SELECT 1")
    for _ in range(3):
        await find(pooled)
    await use_every_connection(pooled)


async def driver_connection(session: AsyncSession) -> asyncpg.Connection:
    raw = await (await session.connection()).get_raw_connection()
    return cast("asyncpg.Connection", raw.driver_connection)


async def test_a_transaction_has_an_end_where_the_server_knows_how(pooled: Store) -> None:
    async with pooled.writing() as (session, _):
        version, timeout = (await session.execute(text(TRANSACTION_TIMEOUT))).one()
    assert timeout == (LONGEST_TRANSACTION if version >= 170_000 else None)


TRANSACTION_TIMEOUT = """
    SELECT CAST(current_setting('server_version_num') AS integer),
           current_setting('transaction_timeout', true)
"""


async def test_a_connection_lost_in_the_middle_leaves_nothing_half_done(
    pooled: Store, other: asyncpg.Connection
) -> None:
    async def write(statements: int) -> None:
        async with transactions(pooled).write() as session:
            await create_jobs(session, [new_job("a")])
            await kill_all(other)
            for _ in range(statements):
                await create_jobs(session, [new_job("b")])

    for statements in (0, 1):
        with pytest.raises(StoreUnavailable):
            await write(statements)
    assert await rows(pooled, "SELECT name FROM jobs") == []
    await use_every_connection(pooled)


async def test_who_waits_for_a_connection_that_is_lost_is_told_to_ask_again(
    store: Store, house: House, store_url: str, other: asyncpg.Connection
) -> None:
    """Through the coalescer: the whole turn hears of it, and the lane goes on."""
    async with locked(store_url, "jobs"):
        callers = [asyncio.create_task(house.create(str(number))) for number in range(3)]
        await until_ours_wait_for_a_lock(other)
        await kill_all(other)
    outcomes = await asyncio.gather(*callers, return_exceptions=True)
    assert any(isinstance(one, StoreUnavailable) for one in outcomes)
    made = {row["name"] for row in await rows(store, "SELECT name FROM jobs")}
    assert made == {one.name for one in outcomes if not isinstance(one, BaseException)}
    assert (await house.create("after")).name == "after"


async def until_ours_wait_for_a_lock(other: asyncpg.Connection) -> None:
    await until(other, f"SELECT count(*) > 0 {OURS} AND wait_event_type = 'Lock'")


async def nothing_is_left_open(other: asyncpg.Connection) -> None:
    """No connection of the store works, waits or stands inside a transaction."""
    await until(other, f"SELECT count(*) = 0 {OURS} AND state <> 'idle'")


async def cancel(caller: asyncio.Task[Any]) -> None:
    caller.cancel()
    await asyncio.wait([caller])


@CALLS
async def test_who_is_cancelled_while_a_statement_waits_leaves_nothing_open(
    pooled: Store, store_url: str, other: asyncpg.Connection, call: Call
) -> None:
    await use_every_connection(pooled)
    for _ in range(POOL_SIZE + 1):
        async with locked(store_url, "jobs"):
            caller = asyncio.ensure_future(call(pooled))
            await until_ours_wait_for_a_lock(other)
            await cancel(caller)
        assert caller.cancelled()
        await nothing_is_left_open(other)
    await use_every_connection(pooled)
    await nothing_is_left_open(other)


@CALLS
async def test_whenever_a_caller_is_cancelled_it_leaves_nothing_open(
    pooled: Store, other: asyncpg.Connection, call: Call
) -> None:
    await use_every_connection(pooled)
    ended: set[bool] = set()
    for steps in range(60):
        caller = asyncio.ensure_future(call(pooled))
        for _ in range(steps):
            await called()
        await cancel(caller)
        ended.add(caller.cancelled())
        if not caller.cancelled():
            caller.result()
        await nothing_is_left_open(other)
    assert True in ended
    await use_every_connection(pooled)
    await nothing_is_left_open(other)


async def test_a_cancelled_caller_leaves_the_transaction_of_its_turn_alone(
    store: Store, house: House, store_url: str, other: asyncpg.Connection
) -> None:
    async with locked(store_url, "jobs"):
        caller, neighbour = (asyncio.create_task(house.create(name)) for name in ("left", "stayed"))
        await until_ours_wait_for_a_lock(other)
        await cancel(caller)
    assert (await neighbour).name == "stayed"
    made = await rows(store, "SELECT name FROM jobs ORDER BY id")
    assert [row["name"] for row in made] == ["left", "stayed"]
    await nothing_is_left_open(other)


# --- what a heartbeat costs


UPDATES = """
    SELECT n_tup_upd AS updated, n_tup_hot_upd AS hot
      FROM pg_stat_user_tables WHERE relname = 'jobs'
"""


async def test_a_heartbeat_touches_no_index(
    pooled: Store, clock: ManualClock, other: asyncpg.Connection
) -> None:
    house = House(pooled, clock)
    before = await updates(other)
    job = await house.running()
    for _ in range(10):
        await house.heartbeats.beat(heartbeat(job))
    await house.close()
    await pooled.close()  # a connection tells its counts at the latest when it ends
    for _ in range(LOOKS):
        if (await updates(other))[0] == before[0] + 11:
            break
    assert await updates(other) == (before[0] + 11, before[1] + 10)  # all but the claim


async def updates(connection: asyncpg.Connection) -> tuple[int, int]:
    """Of jobs: all, and those that touched no index."""
    row = await connection.fetchrow(UPDATES)
    assert row is not None
    return row["updated"], row["hot"]
