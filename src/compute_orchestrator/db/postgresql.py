"""The store on PostgreSQL: a pool of connections, shared with the other replicas of the server.

The time is the database's own, read by each statement, so that replicas never disagree about a
lease, whatever their own clocks say.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Final, cast

import asyncpg
from sqlalchemy import event, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine

from compute_orchestrator.db.clock import Clock, SystemClock
from compute_orchestrator.db.sessions import ReadSession, WriteSession
from compute_orchestrator.domain.errors import StoreUnavailable, UnsupportedStore
from compute_orchestrator.domain.values import Micros

OLDEST_POSTGRESQL: Final = 15
POOL_TIMEOUT_SECONDS: Final = 5
CONNECT_SECONDS: Final = 5
COMMAND_SECONDS: Final = 10
"""No statement of ours is long: one that takes this time waits for a network that is gone."""

CHANNEL: Final = "compute_orchestrator"

SESSION_SETTINGS: Final = {
    "application_name": "compute-orchestrator",
    # A replica that froze in a transaction would hold its rows, the watch among them, for ever.
    "idle_in_transaction_session_timeout": "10s",
    "lock_timeout": "5s",
    "timezone": "UTC",
    # Compiling a statement costs more than all that these bring.
    "jit": "off",
}

# The classes of SQLSTATE that tell of the statement and its data: a bad value, a constraint.
_FAULTS_OF_DATA: Final = ("21", "22", "23", "44")

_POSTGRESQL_EPOCH: Final = 946_684_800_000_000  # 2000-01-01 in microseconds since 1970


class PostgresqlStore:
    """What depends on PostgreSQL, behind the face that every store has (`db/engine.py`)."""

    dialect = "postgresql"
    one_writer = False
    migrates_itself = False

    def __init__(self, url: URL, *, pool_size: int, clock: Clock | None) -> None:
        self.synchronous = "unknown"
        self.durable = True
        self.clock: Clock = clock or SystemClock()
        # Only a clock that was given is told to the statements: that is for tests.
        self._told: Clock | None = clock
        self._url = url
        self._engine = postgresql_engine(url, pool_size=pool_size)
        # One snapshot for all that a reader asks, and no write.
        self._reading = self._engine.execution_options(
            isolation_level="REPEATABLE READ", postgresql_readonly=True
        )

    def own(self) -> None:
        """A database is shared."""

    async def open(self) -> None:
        """Ask what the database is. Raises UnsupportedStore for one that is too old."""
        async with self._engine.connect() as connection:
            version, encoding, synchronous, fsync = (
                await connection.execute(
                    text(
                        "SELECT CAST(current_setting('server_version_num') AS integer) / 10000,"
                        " current_setting('server_encoding'),"
                        " current_setting('synchronous_commit'), current_setting('fsync')"
                    )
                )
            ).one()
        if version < OLDEST_POSTGRESQL:
            raise UnsupportedStore(
                f"The database is PostgreSQL {version}; the store needs {OLDEST_POSTGRESQL} "
                "or newer."
            )
        if encoding != "UTF8":
            raise UnsupportedStore(f"The database is in {encoding}; the store needs UTF8.")
        self.synchronous = synchronous if fsync == "on" else "fsync off"
        self.durable = fsync == "on" and synchronous != "off"

    async def close(self) -> None:
        await self._engine.dispose()

    @asynccontextmanager
    async def reading(self) -> AsyncGenerator[tuple[AsyncSession, ReadSession]]:
        async with AsyncSession(self._reading) as session:
            yield session, ReadSession(session, dialect=self.dialect, now=self._now())

    @asynccontextmanager
    async def writing(self) -> AsyncGenerator[tuple[AsyncSession, WriteSession]]:
        async with AsyncSession(self._engine, expire_on_commit=False) as session:
            now = self._now()
            yield session, WriteSession(session, dialect=self.dialect, now=now, alone=False)

    @asynccontextmanager
    async def channel(
        self, hear: Callable[[str], None], on_end: Callable[[], None]
    ) -> AsyncGenerator[Callable[[str], Awaitable[None]]]:
        """LISTEN and NOTIFY, on a connection of their own, outside of any transaction."""
        engine = postgresql_engine(self._url, pool_size=1)
        try:
            async with engine.connect() as pooled:
                raw = await pooled.get_raw_connection()
                connection = cast("asyncpg.Connection", raw.driver_connection)
                me = connection.get_server_pid()

                def on_message(_: object, sender: int, _channel: str, message: object) -> None:
                    if sender != me:
                        hear(str(message))

                await connection.add_listener(CHANNEL, on_message)
                connection.add_termination_listener(lambda _: on_end())

                async def tell(message: str) -> None:
                    await connection.execute("SELECT pg_notify($1, $2)", CHANNEL, message)

                yield tell
        except (SQLAlchemyError, asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
            raise StoreUnavailable(f"The way to the other replicas is gone: {error}") from error
        finally:
            await engine.dispose()

    def is_fault_of_data(self, error: BaseException) -> bool:
        if not isinstance(error, DBAPIError) or error.connection_invalidated:
            return False
        state = getattr(error.orig, "sqlstate", None)
        return state is not None and state.startswith(_FAULTS_OF_DATA)

    def _now(self) -> Micros | None:
        return None if self._told is None else self._told.now()


def _to_wire(moment: Micros) -> tuple[int]:
    return (moment - _POSTGRESQL_EPOCH,)


def _from_wire(parts: tuple[int]) -> Micros:
    return Micros(parts[0] + _POSTGRESQL_EPOCH)


def postgresql_engine(url: URL, *, pool_size: int) -> AsyncEngine:
    """An engine whose connections bring times as microseconds and JSON as its text."""
    engine = create_async_engine(
        url,
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=POOL_TIMEOUT_SECONDS,
        pool_use_lifo=True,
        connect_args={
            "timeout": CONNECT_SECONDS,
            "command_timeout": COMMAND_SECONDS,
            "server_settings": SESSION_SETTINGS,
        },
    )

    async def teach(connection: Any) -> None:
        await connection.set_type_codec(
            "timestamptz",
            schema="pg_catalog",
            format="tuple",
            encoder=_to_wire,
            decoder=_from_wire,
        )
        await connection.set_type_codec(
            "json", schema="pg_catalog", format="text", encoder=str, decoder=str
        )

    def on_connect(connection: Any, _record: Any) -> None:
        connection.run_async(teach)

    event.listen(engine.sync_engine, "connect", on_connect)
    return engine
