"""The store on SQLite: one file, one writer connection, some readers, one owner."""

import sqlite3
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine

from compute_orchestrator.db.clock import Clock, SystemClock
from compute_orchestrator.db.driver import connect
from compute_orchestrator.db.owner import OwnerLock
from compute_orchestrator.db.sessions import ReadSession, WriteSession
from compute_orchestrator.domain.errors import UnsupportedStore

OLDEST_SQLITE = (3, 38, 0)  # ->>, RETURNING, UPDATE FROM
BUSY_TIMEOUT_MILLISECONDS = 5_000
POOL_TIMEOUT_SECONDS = 5

# What is wrong with the file or the disk; every other code is about the statement and its data.
_UNAVAILABLE_CODES = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_INTERRUPT,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_PROTOCOL,
        sqlite3.SQLITE_NOTADB,
        sqlite3.SQLITE_PERM,
    }
)


class SqliteStore:
    """What depends on SQLite, behind the face that every store has (`db/engine.py`)."""

    dialect = "sqlite"
    one_writer = True
    migrates_itself = True

    def __init__(self, url: URL, *, synchronous: str, readers: int, clock: Clock | None) -> None:
        """Raises UnsupportedStore where Python is linked to an SQLite that is too old."""
        if sqlite3.sqlite_version_info < OLDEST_SQLITE:
            raise UnsupportedStore(
                f"Python is linked to SQLite {sqlite3.sqlite_version}; the store needs "
                f"{'.'.join(map(str, OLDEST_SQLITE))} or newer."
            )
        self.path = file_of(url)
        self.synchronous = synchronous.upper()
        self.durable = self.synchronous in ("FULL", "EXTRA")
        self.clock: Clock = clock or SystemClock()
        self._owner = OwnerLock(self.path)
        self._writer = sqlite_engine(url, begin="BEGIN IMMEDIATE", synchronous=synchronous, size=1)
        self._readers = sqlite_engine(
            url, begin="BEGIN", synchronous=synchronous, size=readers, query_only=True
        )

    def own(self) -> None:
        """Raises StoreOwned when another process has the file."""
        self._owner.acquire()

    async def open(self) -> None:
        """There is nothing to find out: a file is what its settings say."""

    async def close(self) -> None:
        await self._readers.dispose()
        await self._writer.dispose()
        self._owner.release()

    @asynccontextmanager
    async def reading(self) -> AsyncGenerator[tuple[AsyncSession, ReadSession]]:
        async with AsyncSession(self._readers) as session:
            yield session, ReadSession(session, dialect=self.dialect, now=self.clock.now())

    @asynccontextmanager
    async def writing(self) -> AsyncGenerator[tuple[AsyncSession, WriteSession]]:
        async with AsyncSession(self._writer, expire_on_commit=False) as session:
            await session.connection()  # BEGIN IMMEDIATE may wait; the time is read after it
            now = self.clock.now()
            yield session, WriteSession(session, dialect=self.dialect, now=now, alone=True)

    @asynccontextmanager
    async def channel(
        self, hear: Callable[[str], None], on_end: Callable[[], None]
    ) -> AsyncGenerator[Callable[[str], Awaitable[None]]]:
        """Nobody else is on the file."""
        _ = hear, on_end

        async def tell(_message: str) -> None: ...

        yield tell

    def is_fault_of_data(self, error: BaseException) -> bool:
        if not isinstance(error, DBAPIError) or error.connection_invalidated:
            return False
        code = getattr(error.orig, "sqlite_errorcode", None)
        return code is not None and (code & 0xFF) not in _UNAVAILABLE_CODES


def file_of(url: URL) -> Path:
    """The file behind a URL, by its one true name: a lock beside each symlink would be no lock."""
    return Path(url.database or "").resolve()


def sqlite_engine(
    url: URL, *, begin: str, synchronous: str, size: int, query_only: bool = False
) -> AsyncEngine:
    """An engine whose connections begin their transactions themselves.

    The driver's own BEGIN is deferred, and a deferred transaction that later writes fails at once
    with SQLITE_BUSY_SNAPSHOT.
    """
    engine = create_async_engine(
        url,
        pool_size=size,
        max_overflow=0,
        pool_timeout=POOL_TIMEOUT_SECONDS,
        async_creator=lambda: connect(Path(url.database or "")),
    )

    def on_connect(connection: Any, _record: Any) -> None:
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MILLISECONDS}")
        cursor.execute("PRAGMA journal_mode = WAL")
        cursor.execute(f"PRAGMA synchronous = {synchronous}")
        cursor.execute("PRAGMA temp_store = MEMORY")
        cursor.execute("PRAGMA cache_size = -65536")
        cursor.execute(f"PRAGMA query_only = {int(query_only)}")
        cursor.close()

    def on_begin(connection: Any) -> None:
        connection.exec_driver_sql(begin)

    event.listen(engine.sync_engine, "connect", on_connect)
    event.listen(engine.sync_engine, "begin", on_begin)
    return engine
