"""The store object: what every store can do, and which one a database URL names.

Nothing above `db/` asks which dialect it is: it asks the store for sessions, how writers share
transactions (`one_writer`), what an error means (`is_fault_of_data`), who keeps the schema
(`migrates_itself`).
"""

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from sqlalchemy import make_url
from sqlalchemy.engine import URL
from sqlalchemy.exc import ArgumentError
from sqlalchemy.ext.asyncio import AsyncSession

from compute_orchestrator.db.clock import Clock
from compute_orchestrator.db.postgresql import PostgresqlStore
from compute_orchestrator.db.sessions import ReadSession, WriteSession
from compute_orchestrator.db.sqlite import SqliteStore
from compute_orchestrator.domain.errors import UnsupportedStore

Tell = Callable[[str], Awaitable[None]]


class Store(Protocol):
    """The face of a store.

    `synchronous` is its own word for how it syncs a commit, `durable` whether a power cut can lose
    one. `clock` is for rests and spans; decisions take the time of their session.
    """

    synchronous: str
    durable: bool
    clock: Clock

    @property
    def dialect(self) -> str: ...

    @property
    def one_writer(self) -> bool: ...

    @property
    def migrates_itself(self) -> bool: ...

    def own(self) -> None:
        """Raises StoreOwned where the store is for one process and another has it."""
        ...

    async def open(self) -> None:
        """Find out what the store is. Raises UnsupportedStore."""
        ...

    async def close(self) -> None: ...

    def reading(self) -> AbstractAsyncContextManager[tuple[AsyncSession, ReadSession]]: ...

    def writing(self) -> AbstractAsyncContextManager[tuple[AsyncSession, WriteSession]]: ...

    def channel(
        self, hear: Callable[[str], None], on_end: Callable[[], None]
    ) -> AbstractAsyncContextManager[Tell]:
        """A way to the other processes on this store, where it has `one_writer` to none.

        `hear` is called with what they tell, `on_end` when the way is gone. Telling raises
        StoreUnavailable then.
        """
        ...

    def is_fault_of_data(self, error: BaseException) -> bool:
        """Whether a statement failed over its data, and not because the store is in trouble."""
        ...


def build_store(
    database_url: str,
    *,
    sqlite_synchronous: str = "FULL",
    sqlite_readers: int = 4,
    postgres_pool_size: int = 10,
    clock: Clock | None = None,
) -> Store:
    """The store behind a database URL.

    Raises UnsupportedStore for a URL that names another database, or a library too old.
    """
    url = parse_url(database_url)
    if url.get_backend_name() == PostgresqlStore.dialect:
        return PostgresqlStore(url, pool_size=postgres_pool_size, clock=clock)
    return SqliteStore(url, synchronous=sqlite_synchronous, readers=sqlite_readers, clock=clock)


def parse_url(database_url: str) -> URL:
    """Raises UnsupportedStore for a URL that no store of ours speaks to."""
    try:
        url = make_url(database_url)
    except ArgumentError:
        raise UnsupportedStore(
            "ORC_DATABASE_URL is not a database URL, such as sqlite+aiosqlite:///orc.db."
        ) from None
    if url.drivername in ("postgresql", "postgres", "postgresql+asyncpg"):
        url = url.set(drivername="postgresql+asyncpg")
        if "sslmode" in url.query:  # as libpq writes it; the driver calls it ssl
            ssl = url.query["sslmode"]
            url = url.difference_update_query(["sslmode"]).update_query_dict({"ssl": ssl})
        return url
    if url.drivername != "sqlite+aiosqlite" or url.database in (None, "", ":memory:"):
        raise UnsupportedStore(
            "ORC_DATABASE_URL must name an SQLite file, as in sqlite+aiosqlite:///orc.db, or a "
            f"PostgreSQL database, as in postgresql://user@host/name (it is "
            f"{url.render_as_string()})."
        )
    return url
