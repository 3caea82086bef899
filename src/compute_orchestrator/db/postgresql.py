"""The store on PostgreSQL: a pool of connections, shared with the other replicas of the server.

The time is the database's own, read by each statement, so that replicas never disagree about a
lease, whatever their own clocks say.
"""

import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Final, cast

import asyncpg
from sqlalchemy import event, text
from sqlalchemy.engine import URL, ExceptionContext
from sqlalchemy.exc import DBAPIError, DisconnectionError, SQLAlchemyError
from sqlalchemy.ext.asyncio import (
    AsyncConnection,
    AsyncEngine,
    AsyncSession,
    create_async_engine,
)

from compute_orchestrator.db.clock import Clock, SystemClock
from compute_orchestrator.db.sessions import ReadSession, WriteSession
from compute_orchestrator.domain.errors import StoreUnavailable, UnsupportedStore
from compute_orchestrator.domain.values import Micros

logger = logging.getLogger(__name__)

OLDEST_POSTGRESQL: Final = 15

# A call is answered before the ten seconds are over that the client waits: where the network stands
# still it waits for one statement at most, and then for one try to connect.
POOL_TIMEOUT_SECONDS: Final = 5
CONNECT_SECONDS: Final = 3
COMMAND_SECONDS: Final = 5
"""No statement of ours is long: one that takes this time waits for a network that is gone."""

CHANNEL: Final = "compute_orchestrator"

SESSION_SETTINGS: Final = {
    "application_name": "compute-orchestrator",
    # A replica that froze in a transaction would hold its rows, the watch among them, for ever.
    "idle_in_transaction_session_timeout": "10s",
    "lock_timeout": "3s",
    # Whatever the database's own is: a write waits for the other one and goes on, as it is written.
    "default_transaction_isolation": "read committed",
    "timezone": "UTC",
    # Compiling a statement costs more than all that these bring.
    "jit": "off",
}

LONGEST_TRANSACTION: Final = "30s"
"""From 17 on: one that froze in the middle of a statement is not idle."""

# A pooler by transaction, such as PgBouncer, takes only the settings that it tracks itself, the
# others are to be set for the role. Each transaction may be on another connection, which knows no
# statement of before.
POOLED: Final[dict[str, Any]] = {
    "server_settings": {name: SESSION_SETTINGS[name] for name in ("application_name", "timezone")},
    "statement_cache_size": 0,
    "prepared_statement_cache_size": 0,
    "prepared_statement_name_func": lambda: "",
}

# In the query of the URL: it leads to such a pooler; and where the database itself is, `host:port`.
POOLER: Final = "pgbouncer"
DIRECT: Final = "direct"

READ_ONLY: Final = "25006"

# The classes of SQLSTATE that tell of the statement and its data: a bad value, a constraint.
_FAULTS_OF_DATA: Final = ("21", "22", "23", "44")

# What comes of a connection that is used without SQLAlchemy around it.
_TROUBLE_OF_DRIVER: Final = (
    SQLAlchemyError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    OSError,
)

NO_ANSWER: Final = "no answer came in time"

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
        self._direct = _direct(url)
        self._engine = postgresql_engine(url, pool_size=pool_size, command_seconds=COMMAND_SECONDS)
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
            await _warn_of_settings(connection)
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
        """LISTEN and NOTIFY, on a connection of their own, outside of any transaction.

        A pooler lets nobody listen: without a direct way nothing is heard and nothing told.
        """
        if self._direct is None:
            yield _tell_nobody
            return
        engine = postgresql_engine(self._direct, pool_size=1, command_seconds=COMMAND_SECONDS)
        try:
            async with engine.connect() as pooled:
                raw = await pooled.get_raw_connection()
                connection = cast("asyncpg.Connection", raw.driver_connection)
                try:
                    yield await _listening(connection, hear, on_end)
                finally:
                    connection.terminate()  # a dead one would be waited for to say good-bye
        except _TROUBLE_OF_DRIVER as error:
            cause = str(error) or NO_ANSWER
            raise StoreUnavailable(f"The way to the other replicas is gone: {cause}") from error
        finally:
            await engine.dispose()

    def is_fault_of_data(self, error: BaseException) -> bool:
        if not isinstance(error, DBAPIError) or error.connection_invalidated:
            return False
        state = getattr(error.orig, "sqlstate", None)
        return state is not None and state.startswith(_FAULTS_OF_DATA)

    def _now(self) -> Micros | None:
        return None if self._told is None else self._told.now()


async def _warn_of_settings(connection: AsyncConnection) -> None:
    """A connection directly to the database has them all."""
    names = ", ".join(f"current_setting('{name}')" for name in SESSION_SETTINGS)
    found = (await connection.execute(text(f"SELECT {names}"))).one()
    for (name, wanted), value in zip(SESSION_SETTINGS.items(), found, strict=True):
        if value != wanted:
            logger.warning(
                "%s is %s: say ALTER ROLE CURRENT_USER SET %s = '%s'", name, value, name, wanted
            )


def _direct(url: URL) -> URL | None:
    """The way to the database itself, as far as it is known. Raises UnsupportedStore."""
    if POOLER not in url.query:
        return url
    if url.query[POOLER] != "true":
        raise UnsupportedStore("The URL may say pgbouncer=true, and nothing else of it.")
    if DIRECT not in url.query:
        return None
    host, _, port = str(url.query[DIRECT]).rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isdecimal():
        raise UnsupportedStore("The URL's direct= is the database's host:port.")
    return url.difference_update_query([POOLER, DIRECT, "host"]).set(host=host, port=int(port))


async def _tell_nobody(_message: str) -> None:
    """Others look for themselves."""


async def _listening(
    connection: asyncpg.Connection, hear: Callable[[str], None], on_end: Callable[[], None]
) -> Callable[[str], Awaitable[None]]:
    me = connection.get_server_pid()

    def on_message(_: object, sender: int, _channel: str, message: object) -> None:
        if sender != me:
            hear(str(message))

    async def tell(message: str) -> None:
        await connection.execute("SELECT pg_notify($1, $2)", CHANNEL, message)

    await connection.add_listener(CHANNEL, on_message)
    connection.add_termination_listener(lambda _: on_end())
    return tell


def _to_wire(moment: Micros) -> tuple[int]:
    return (moment - _POSTGRESQL_EPOCH,)


def _from_wire(parts: tuple[int]) -> Micros:
    return Micros(parts[0] + _POSTGRESQL_EPOCH)


def postgresql_engine(
    url: URL, *, pool_size: int, command_seconds: float | None = None
) -> AsyncEngine:
    """An engine whose connections bring times as microseconds and JSON as its text.

    A statement may take `command_seconds`, or for ever.
    """
    pooled = POOLER in url.query
    url = url.difference_update_query([POOLER, DIRECT])
    engine = create_async_engine(
        url,
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=POOL_TIMEOUT_SECONDS,
        pool_use_lifo=True,
        connect_args={
            "timeout": CONNECT_SECONDS,
            "command_timeout": command_seconds,
            **(POOLED if pooled else {"server_settings": SESSION_SETTINGS}),
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
        if command_seconds and not pooled and connection.get_server_version() >= (17,):
            try:
                await connection.execute(f"SET transaction_timeout = '{LONGEST_TRANSACTION}'")
            except _TROUBLE_OF_DRIVER as error:  # here nobody translates what the driver throws
                raise ConnectionError(str(error) or NO_ANSWER) from error

    def on_connect(connection: Any, _record: Any) -> None:
        connection.run_async(teach)

    event.listen(engine.sync_engine, "connect", on_connect)
    event.listen(engine.sync_engine, "checkout", _refuse_closed)
    event.listen(engine.sync_engine, "handle_error", _give_up_on_connection)
    return engine


def _refuse_closed(connection: Any, _record: Any, _proxy: Any) -> None:
    """Connect anew where the database said good-bye while the connection was at rest."""
    if connection.driver_connection.is_closed():
        raise DisconnectionError


def _give_up_on_connection(context: ExceptionContext) -> None:
    """Connect anew, with the whole pool, where the old connections lead to nowhere: no answer came,
    or they were made while the database could only be read.
    """
    error = context.original_exception
    if isinstance(error, TimeoutError) or getattr(error, "sqlstate", None) == READ_ONLY:
        context.is_disconnect = True
