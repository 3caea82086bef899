"""Migrations: where they are (in the tree or in the wheel), and how they are run."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import AsyncEngine

from compute_orchestrator.db.engine import parse_url, sqlite_engine

T = TypeVar("T")

_PACKAGE = Path(__file__).resolve().parent.parent


def migrations_home() -> Path:
    """The folder with alembic.ini and migrations/: the package in a wheel, else the tree's root."""
    installed = (_PACKAGE / "migrations").is_dir()
    return _PACKAGE if installed else _PACKAGE.parent.parent


def alembic_config() -> Config:
    home = migrations_home()
    config = Config(home / "alembic.ini")
    config.set_main_option("script_location", str(home / "migrations").replace("%", "%%"))
    return config


def head_revision() -> str | None:
    """The revision that this version needs."""
    return ScriptDirectory.from_config(alembic_config()).get_current_head()


def current_revision(database_url: str) -> str | None:
    """The revision that the store is at; None for an empty one."""
    return asyncio.run(_run(database_url, _read_revision))


def upgrade(database_url: str) -> None:
    """Bring the store to the newest schema. Blocking: from a running loop, call it in a thread."""
    asyncio.run(_run(database_url, _upgrade))


def migration_engine(database_url: str) -> AsyncEngine:
    url = parse_url(database_url)
    Path(url.database or "").absolute().parent.mkdir(parents=True, exist_ok=True)
    return sqlite_engine(url, begin="BEGIN IMMEDIATE", synchronous="FULL", size=1)


async def _run(database_url: str, work: Callable[[Connection], T]) -> T:
    engine = migration_engine(database_url)
    try:
        async with engine.begin() as connection:
            return await connection.run_sync(work)
    finally:
        await engine.dispose()


def _read_revision(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


def _upgrade(connection: Connection) -> None:
    config = alembic_config()
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
