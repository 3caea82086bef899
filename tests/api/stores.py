"""Store files: an empty one, migrated once a process, and everything that stands in one."""

import sqlite3
import tempfile
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from sqlalchemy import make_url

from compute_orchestrator.db.migrate import upgrade
from compute_orchestrator.settings import Settings


@lru_cache(maxsize=1)
def _empty_store() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "empty.db"
        with ThreadPoolExecutor(1) as threads:  # it runs a loop of its own
            threads.submit(upgrade, f"sqlite+aiosqlite:///{path}").result()
        return path.read_bytes()


def put_empty_store(path: Path) -> str:
    """Write a migrated store without jobs to this path. Its database URL."""
    path.write_bytes(_empty_store())
    return f"sqlite+aiosqlite:///{path}"


def settings_for(database_url: str, **settings: Any) -> Settings:
    given: dict[str, Any] = {"database_url": database_url, "sqlite_synchronous": "OFF"}
    return Settings(**{**given, **settings})


def store_path(settings: Settings) -> Path:
    return Path(make_url(settings.database_url).database or "")


@contextmanager
def opened(settings: Settings) -> Generator[sqlite3.Connection]:
    """A connection of the test's own, committed at the end."""
    with closing(sqlite3.connect(store_path(settings))) as connection, connection:
        yield connection


def everything(settings: Settings) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of every table, sequences too: equal before and after means nothing was written."""
    with opened(settings) as connection:
        names = [
            row[0]
            for row in connection.execute(
                "SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name"
            )
        ]
        return {
            name: sorted(connection.execute(f'SELECT * FROM "{name}"'), key=repr)  # noqa: S608 - names of the schema
            for name in names
        }
