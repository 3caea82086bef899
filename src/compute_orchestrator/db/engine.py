"""The store object: an engine per dialect, its sessions, and the traits that depend on the dialect.

Nothing above `db/` asks which dialect it is: it asks the store how writers share transactions
(`one_writer`), what an error means (`is_fault_of_data`), and for sessions.
"""

import sqlite3
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import event, make_url
from sqlalchemy.engine import URL
from sqlalchemy.exc import ArgumentError, DBAPIError
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
    """An SQLite file: one writer connection, some readers, one owner."""

    dialect = "sqlite"
    one_writer = True
    migrates_itself = True

    def __init__(self, url: URL, *, synchronous: str, readers: int, clock: Clock | None) -> None:
        self.path = file_of(url)
        self.url = url
        self.synchronous = synchronous.upper()
        self.clock: Clock = clock or SystemClock()
        self._owner = OwnerLock(self.path)
        self._writer = sqlite_engine(url, begin="BEGIN IMMEDIATE", synchronous=synchronous, size=1)
        self._readers = sqlite_engine(
            url, begin="BEGIN", synchronous=synchronous, size=readers, query_only=True
        )

    def own(self) -> None:
        """Raises StoreOwned when another process has the file."""
        self._owner.acquire()

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
            yield session, WriteSession(session, dialect=self.dialect, now=self.clock.now())

    def is_fault_of_data(self, error: BaseException) -> bool:
        """Whether a statement failed over its data, and not because the store is in trouble."""
        if not isinstance(error, DBAPIError) or error.connection_invalidated:
            return False
        code = getattr(error.orig, "sqlite_errorcode", None)
        return code is not None and (code & 0xFF) not in _UNAVAILABLE_CODES


Store = SqliteStore


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


def build_store(
    database_url: str,
    *,
    sqlite_synchronous: str = "FULL",
    sqlite_readers: int = 4,
    clock: Clock | None = None,
) -> Store:
    """The store behind a database URL.

    Raises UnsupportedStore for a URL that names another database, or an SQLite library too old.
    """
    url = parse_url(database_url)
    if sqlite3.sqlite_version_info < OLDEST_SQLITE:
        raise UnsupportedStore(
            f"Python is linked to SQLite {sqlite3.sqlite_version}; the store needs "
            f"{'.'.join(map(str, OLDEST_SQLITE))} or newer."
        )
    return SqliteStore(url, synchronous=sqlite_synchronous, readers=sqlite_readers, clock=clock)


def file_of(url: URL) -> Path:
    """The file behind a URL, by its one true name: a lock beside each symlink would be no lock."""
    return Path(url.database or "").resolve()


def parse_url(database_url: str) -> URL:
    """Raises UnsupportedStore for a URL that this version does not speak to."""
    try:
        url = make_url(database_url)
    except ArgumentError:
        raise UnsupportedStore(
            "ORC_DATABASE_URL is not a database URL, such as sqlite+aiosqlite:///orc.db."
        ) from None
    if url.drivername != "sqlite+aiosqlite" or url.database in (None, "", ":memory:"):
        raise UnsupportedStore(
            "ORC_DATABASE_URL must name an SQLite file, as in sqlite+aiosqlite:///orc.db "
            f"(it is {url.render_as_string()})."
        )
    return url
