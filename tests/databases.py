"""What stands in a store, read by another connection than the server's, on either database."""

import asyncio
import re
import sqlite3
from collections.abc import Awaitable, Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import asyncpg
from sqlalchemy import make_url

from compute_orchestrator.db.models import Base

Row = dict[str, Any]
Ask = Callable[..., list[Row]]
"""A statement with `?` for each parameter that follows; its rows."""

TABLES: Final = tuple(sorted(Base.metadata.tables))
_SINCE: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Database:
    """Times are microseconds, JSON is its text, on both."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.is_file = url.startswith("sqlite")

    @property
    def file(self) -> Path:
        """Of SQLite alone."""
        assert self.is_file
        return Path(make_url(self.url).database or "")

    @contextmanager
    def connected(self) -> Generator[Ask]:
        """A connection of the test's own, outside of any transaction."""
        with _to_file(self.file) if self.is_file else _to_postgresql(self.url) as ask:
            yield ask

    def rows(self, sql: str, *parameters: object) -> list[Row]:
        with self.connected() as ask:
            return ask(sql, *parameters)

    def value(self, sql: str, *parameters: object) -> Any:
        """The one value of the one row."""
        ((found,),) = (row.values() for row in self.rows(sql, *parameters))
        return found

    def everything(self) -> dict[str, list[Row]]:
        """Every row of every table: equal before and after means that nothing was written."""
        with self.connected() as ask:
            return {
                table: sorted(ask(f"SELECT * FROM {table}"), key=repr)  # noqa: S608 - of the models
                for table in TABLES
            }

    def is_whole(self) -> bool:
        """Whether the file is sound. PostgreSQL sees to its own when it starts."""
        return not self.is_file or self.value("PRAGMA integrity_check") == "ok"

    @contextmanager
    def locked(self) -> Generator[None]:
        """Nobody else can write meanwhile; reading goes on."""
        with self.connected() as ask:
            if self.is_file:
                ask("BEGIN EXCLUSIVE")
            else:
                _lock_all(ask)
            yield
            ask("ROLLBACK")


def _lock_all(ask: Ask) -> None:
    """All at once or none: who waits for one while he holds another may wait in a circle."""
    while True:
        ask("BEGIN")
        try:
            ask(f"LOCK TABLE {', '.join(TABLES)} IN EXCLUSIVE MODE NOWAIT")
        except asyncpg.LockNotAvailableError:
            ask("ROLLBACK")
        else:
            return


@contextmanager
def _to_file(path: Path) -> Generator[Ask]:
    with closing(sqlite3.connect(path, isolation_level=None, timeout=5)) as connection:
        connection.row_factory = sqlite3.Row

        def ask(sql: str, *parameters: object) -> list[Row]:
            return [dict(row) for row in connection.execute(sql, parameters)]

        yield ask


@contextmanager
def _to_postgresql(url: str) -> Generator[Ask]:
    # In a thread of its own: the test that asks is itself in a loop.
    with ThreadPoolExecutor(1) as thread, asyncio.Runner() as runner:

        def wait_for(work: Awaitable[Any]) -> Any:
            async def awaited() -> Any:
                return await work

            return thread.submit(runner.run, awaited()).result()

        connection: asyncpg.Connection = wait_for(asyncpg.connect(url))

        def ask(sql: str, *parameters: object) -> list[Row]:
            numbers = iter(range(1, len(parameters) + 1))
            numbered = re.sub(r"\?", lambda _: f"${next(numbers)}", sql)
            records = wait_for(connection.fetch(numbered, *parameters))
            return [{name: _plain(it) for name, it in record.items()} for record in records]

        try:
            yield ask
        finally:
            wait_for(connection.close())
            thread.submit(runner.close).result()


def _plain(found: Any) -> Any:
    """As SQLite has it."""
    if isinstance(found, datetime):
        return (found - _SINCE) // timedelta(microseconds=1)
    return int(found) if isinstance(found, Decimal) else found
