"""One thread hop a statement: an aiosqlite connection whose cursors execute and fetch at once.

aiosqlite runs each call of a cursor in the connection's thread, and SQLAlchemy makes four of them a
statement (open, execute, fetch, close). Each is a switch of threads that fights the event loop for
the interpreter's lock; once the SQL is right they are most of what a small transaction costs.
"""

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Self

import aiosqlite


class OneHopConnection(aiosqlite.Connection):
    """What SQLAlchemy's adapter needs of an aiosqlite connection, with fewer hops."""

    def __init__(self, database: Path) -> None:
        super().__init__(
            lambda: sqlite3.connect(database, isolation_level=None, check_same_thread=False),
            iter_chunk_size=64,
        )
        self._thread.daemon = True  # a connection must not hold the exit

    def cursor(self) -> "OneHopCursor":  # pyright: ignore[reportIncompatibleMethodOverride]
        return OneHopCursor(self)

    async def run(self, sql: str, parameters: Sequence[Any]) -> "Fetched":
        """Execute a statement and fetch all of its rows in the connection's thread."""
        # aiosqlite has no types for the one method that runs a function in its thread.
        in_thread: Callable[..., Awaitable[Fetched]] = getattr(self, "_execute")  # noqa: B009
        return await in_thread(_run, self._conn, sql, parameters)

    def stop(self) -> asyncio.Future[Any] | None:
        """Only once: a second stop would wait for ever, for a thread that has ended.

        A pool that gave up on closing a connection stops it while that close still waits.
        """
        if not self._running:
            return None
        return super().stop()  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]

    async def rollback(self) -> None:
        """No hop where there is nothing to roll back: each return to the pool asks for it."""
        if self.in_transaction:
            await super().rollback()


class Fetched:
    """What came of a statement."""

    __slots__ = ("description", "rowcount", "rows")

    def __init__(self, cursor: sqlite3.Cursor) -> None:
        self.description = cursor.description
        self.rows: list[Any] = cursor.fetchall() if cursor.description else []
        self.rowcount = cursor.rowcount


def _run(connection: sqlite3.Connection, sql: str, parameters: Sequence[Any]) -> Fetched:
    cursor = connection.execute(sql, parameters)
    try:
        return Fetched(cursor)
    finally:
        cursor.close()


class OneHopCursor:
    """A cursor that is only a place for what was fetched."""

    arraysize = 1

    def __init__(self, connection: OneHopConnection) -> None:
        self._connection = connection
        self._fetched: Fetched | None = None

    async def __aenter__(self) -> Self:
        return self

    async def execute(self, sql: str, parameters: Sequence[Any] = ()) -> Self:
        self._fetched = await self._connection.run(sql, parameters)
        return self

    @property
    def description(self) -> Any:
        return self._fetched and self._fetched.description

    @property
    def rowcount(self) -> int:
        return -1 if self._fetched is None else self._fetched.rowcount

    async def fetchall(self) -> list[Any]:
        return [] if self._fetched is None else self._fetched.rows

    async def close(self) -> None:
        self._fetched = None


async def connect(database: Path) -> OneHopConnection:
    """Open a connection that leaves transactions to its user."""
    connection = OneHopConnection(database)
    await connection
    return connection
