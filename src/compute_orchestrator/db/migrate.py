"""Migrations: where they are (in the tree or in the wheel), and how they are run."""

import asyncio
import sqlite3
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, NullPool, create_engine, inspect, text
from sqlalchemy.ext.asyncio import AsyncEngine

from compute_orchestrator.db.engine import file_of, parse_url, sqlite_engine
from compute_orchestrator.db.owner import OwnerLock
from compute_orchestrator.domain.errors import SchemaUnknown

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
    """The revision that the store is at; None where it is empty or not there. Writes nothing.

    Raises SchemaUnknown.
    """
    path = file_of(parse_url(database_url))
    if not path.exists():
        return None
    engine = create_engine("sqlite://", creator=lambda: _open_to_read(path), poolclass=NullPool)
    with engine.connect() as connection:
        return _known_revision(connection)


@contextmanager
def owning(database_url: str) -> Generator[None]:
    """Keep every server off the store meanwhile. Raises StoreOwned where one has it."""
    lock = OwnerLock(file_of(parse_url(database_url)))
    lock.acquire()
    try:
        yield
    finally:
        lock.release()


def upgrade(database_url: str) -> None:
    """Bring the store, which the caller owns, to the newest schema. Raises SchemaUnknown.

    Blocking: from a running loop, call it in a thread.
    """
    asyncio.run(_run_upgrade(database_url))


def migration_engine(database_url: str) -> AsyncEngine:
    url = parse_url(database_url)
    file_of(url).parent.mkdir(parents=True, exist_ok=True)
    return sqlite_engine(url, begin="BEGIN IMMEDIATE", synchronous="FULL", size=1)


def _open_to_read(path: Path) -> sqlite3.Connection:
    # A reader of a file in WAL mode makes the log and its index where they are missing, and leaves
    # them there. Without a log nobody writes, and the file alone is the whole truth.
    still = not path.with_name(path.name + "-wal").exists()
    return sqlite3.connect(f"{path.as_uri()}?mode=ro&immutable={int(still)}", uri=True)


async def _run_upgrade(database_url: str) -> None:
    engine = migration_engine(database_url)
    try:
        async with engine.begin() as connection:
            await connection.run_sync(_upgrade)
    finally:
        await engine.dispose()


def _known_revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    revision = connection.scalar(text("SELECT version_num FROM alembic_version"))
    script = ScriptDirectory.from_config(alembic_config())
    if revision is not None and revision not in {one.revision for one in script.walk_revisions()}:
        raise SchemaUnknown(
            f"The store is at the schema {revision}, which this version does not know: a newer "
            "version made it. Install that version, or restore a backup."
        )
    return revision


def _upgrade(connection: Connection) -> None:
    _known_revision(connection)
    config = alembic_config()
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
