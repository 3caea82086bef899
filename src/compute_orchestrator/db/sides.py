"""The sides of a copy: one store is read in a snapshot, another is filled in one transaction.

They speak to the drivers themselves, without the limits that a server's connections have: a copy is
long. What is copied is made from the models, so that no table and no column can be forgotten.
"""

import asyncio
import sqlite3
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Sequence
from contextlib import asynccontextmanager, closing, contextmanager, nullcontext
from pathlib import Path
from typing import Any, Final, cast

import asyncpg
from asyncpg.transaction import Transaction
from sqlalchemy import Float, Table, event, literal_column, select
from sqlalchemy.dialects import sqlite

from compute_orchestrator.db.engine import parse_url
from compute_orchestrator.db.models import Base
from compute_orchestrator.db.owner import OwnerLock
from compute_orchestrator.db.postgresql import SESSION_SETTINGS, postgresql_engine
from compute_orchestrator.db.sqlite import file_of
from compute_orchestrator.domain.errors import StoreOwned

Batches = AsyncIterator[Sequence[tuple[Any, ...]]]

TABLES: Final = Base.metadata.sorted_tables
NAMES: Final = ", ".join(table.name for table in TABLES)
ROWS_AT_ONCE: Final = 50
"""Twice as many are in memory, and by default a job has up to 2.4 MB."""

LOOKS: Final = 20
LOOK_SECONDS: Final = 0.1
"""A server that was just stopped is shown for a moment longer."""

SERVERS: Final = """
    SELECT count(*) FROM pg_stat_activity
     WHERE datname = current_database() AND application_name = $1 AND pid <> pg_backend_pid()
"""
IDENTITY: Final = """
    SELECT system_identifier, oid FROM pg_control_system(), pg_database
     WHERE datname = current_database()
"""
# A copy is no server, and takes its time. Not every version has all of these limits.
AS_A_COPY: Final = """
    SELECT set_config('application_name', 'compute-orchestrator copy', false),
           (SELECT count(set_config(name, '0', false)) FROM pg_settings
             WHERE name IN ('statement_timeout', 'transaction_timeout',
                            'idle_in_transaction_session_timeout'))
"""


class CannotCopy(Exception):
    """Says in words why there is no copy."""


def select_all(table: Table) -> str:
    """Every row, along the key. SQLite has no negative zero, so none is read."""
    zero = literal_column("0.0", Float)
    columns = [
        (column + zero).label(column.name) if isinstance(column.type, Float) else column
        for column in table.columns
    ]
    return str(select(*columns).order_by(*table.primary_key))


class SqliteSide:
    """A file."""

    def __init__(self, connection: sqlite3.Connection, path: Path, role: str) -> None:
        self._connection = connection
        self._path = path
        self._role = role

    async def identity(self) -> object:
        return self._path

    @asynccontextmanager
    async def snapshot(self, *, live: bool) -> AsyncGenerator[None]:
        alone = self._owned(" first, or copy beside it with --live")
        self._connection.execute("PRAGMA query_only = 1")
        with nullcontext() if live else alone, self._connection:
            self._connection.execute("BEGIN")
            yield

    @asynccontextmanager
    async def transaction(self) -> AsyncGenerator[None]:
        with self._owned(" first"), self._connection:
            self._connection.execute("BEGIN IMMEDIATE")
            yield

    async def scalar(self, sql: str) -> Any:
        return self._connection.execute(sql).fetchone()[0]

    async def read(self, table: Table) -> Batches:
        rows = self._connection.execute(select_all(table))
        while batch := rows.fetchmany(ROWS_AT_ONCE):
            yield batch
            await asyncio.sleep(0)  # Ctrl-C is heard here

    async def write(self, table: Table, batches: Batches) -> None:
        insert = str(table.insert().compile(dialect=sqlite.dialect()))
        async for batch in batches:
            self._connection.executemany(insert, batch)

    async def last_id(self, table: Table) -> int:
        """The largest id ever given, where the store counts them."""
        return await self.scalar(
            f"SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = '{table.name}'"  # noqa: S608 - of the models
        )

    async def set_last_id(self, table: Table, last: int) -> None:
        if table.dialect_options["sqlite"]["autoincrement"]:
            self._connection.execute("DELETE FROM sqlite_sequence WHERE name = ?", [table.name])
            self._connection.execute(
                "INSERT INTO sqlite_sequence VALUES (?, ?)", [table.name, last]
            )

    @contextmanager
    def _owned(self, advice: str) -> Generator[None]:
        lock = OwnerLock(self._path)
        try:
            lock.acquire()
        except StoreOwned:
            raise CannotCopy(
                f"A server has the {self._role}, {self._path}: stop it{advice}."
            ) from None
        try:
            yield
        finally:
            lock.release()


class PostgresqlSide:
    """A database."""

    def __init__(self, connection: asyncpg.Connection, role: str) -> None:
        self._connection = connection
        self._role = role

    async def identity(self) -> object:
        """What it is: a URL can name it in many ways."""
        return await self._connection.fetchrow(IDENTITY)

    @asynccontextmanager
    async def snapshot(self, *, live: bool) -> AsyncGenerator[None]:
        begin = self._connection.transaction(isolation="repeatable_read", readonly=True)
        alone = self._alone(begin, "SHARE", " first, or copy beside them with --live")
        async with begin if live else alone:
            yield

    @asynccontextmanager
    async def transaction(self) -> AsyncGenerator[None]:
        async with self._alone(self._connection.transaction(), "EXCLUSIVE", " first"):
            yield
            await self._connection.execute(f"ANALYZE {NAMES}")  # for the plans of the first claims

    async def scalar(self, sql: str) -> Any:
        return await self._connection.fetchval(sql)

    async def read(self, table: Table) -> Batches:
        cursor = f"copied_{table.name}"
        await self._connection.execute(f"DECLARE {cursor} CURSOR FOR {select_all(table)}")
        while rows := await self._connection.fetch(f"FETCH {ROWS_AT_ONCE} FROM {cursor}"):
            yield [tuple(row) for row in rows]
        await self._connection.execute(f"CLOSE {cursor}")

    async def write(self, table: Table, batches: Batches) -> None:
        rows = (row async for batch in batches for row in batch)
        await self._connection.copy_records_to_table(
            table.name, records=rows, columns=table.columns.keys()
        )

    async def last_id(self, table: Table) -> int:
        """The largest id ever given."""
        return await self.scalar(
            f"SELECT last_value - CAST(NOT is_called AS integer) FROM {await self._sequence(table)}"  # noqa: S608 - of the models
        )

    async def set_last_id(self, table: Table, last: int) -> None:
        # Unlike setval, this is undone with the transaction.
        sequence = await self._sequence(table)
        await self._connection.execute(f"ALTER SEQUENCE {sequence} RESTART WITH {last + 1}")

    async def _sequence(self, table: Table) -> str:
        return await self.scalar(f"SELECT pg_get_serial_sequence('{table.name}', 'id')")

    @asynccontextmanager
    async def _alone(self, begin: Transaction, mode: str, advice: str) -> AsyncGenerator[None]:
        """No server is there at the beginning or at the end, and none can write in between."""
        await self._refuse_servers(advice)
        async with begin:
            await self._connection.execute(f"LOCK TABLE {NAMES} IN {mode} MODE")
            yield
            await self._refuse_servers(advice)

    async def _refuse_servers(self, advice: str) -> None:
        name = SESSION_SETTINGS["application_name"]
        for _ in range(LOOKS):
            await self._connection.execute("SELECT pg_stat_clear_snapshot()")
            if await self._connection.fetchval(SERVERS, name) == 0:
                return
            await asyncio.sleep(LOOK_SECONDS)
        raise CannotCopy(
            f"Servers are connected to the {self._role} (as {name}): stop them{advice}."
            " PgBouncer keeps their connections for a while; RECONNECT makes it let them go."
        )


Side = SqliteSide | PostgresqlSide


@asynccontextmanager
async def connected(database_url: str, role: str) -> AsyncGenerator[Side]:
    """A side; `role` is what it is called where it is refused."""
    url = parse_url(database_url)
    if url.get_backend_name() == "sqlite":
        path = file_of(url)
        with closing(sqlite3.connect(path, isolation_level=None)) as file:
            file.execute("PRAGMA synchronous = FULL")
            yield SqliteSide(file, path, role)
        return
    engine = postgresql_engine(url, pool_size=1)
    event.listen(engine.sync_engine, "do_connect", _without_limit)
    try:
        async with engine.connect() as pooled:
            raw = await pooled.get_raw_connection()
            connection = cast("asyncpg.Connection", raw.driver_connection)
            await connection.set_type_codec(  # COPY takes no codec of text
                "json",
                schema="pg_catalog",
                format="binary",
                encoder=str.encode,
                decoder=bytes.decode,
            )
            await connection.execute(AS_A_COPY)
            yield PostgresqlSide(connection, role)
    finally:
        await engine.dispose()


def _without_limit(_dialect: Any, _record: Any, _arguments: Any, options: dict[str, Any]) -> None:
    options["command_timeout"] = None
