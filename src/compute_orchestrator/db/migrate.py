"""Migrations: where they are (in the tree or in the wheel), and how they are run."""

import asyncio
import sqlite3
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from sqlalchemy import Connection, NullPool, create_engine, inspect, text
from sqlalchemy.engine import URL
from sqlalchemy.ext.asyncio import AsyncEngine

from compute_orchestrator.db.engine import parse_url
from compute_orchestrator.db.owner import OwnerLock
from compute_orchestrator.db.postgresql import postgresql_engine
from compute_orchestrator.db.sqlite import file_of, sqlite_engine
from compute_orchestrator.domain.errors import SchemaBehind, SchemaUnknown

if TYPE_CHECKING:
    from alembic.config import Config

T = TypeVar("T")

_PACKAGE = Path(__file__).resolve().parent.parent

_WITHOUT_LIMIT: Final = """
    SELECT set_config(name, '0', true) FROM pg_settings
     WHERE name IN ('lock_timeout', 'statement_timeout', 'transaction_timeout')
"""

# Any number will do that nobody else locks in this database.
MIGRATION_LOCK: Final = 7_215_338_101


def migrations_home() -> Path:
    """The folder with alembic.ini and migrations/: the package in a wheel, else the tree's root."""
    installed = (_PACKAGE / "migrations").is_dir()
    return _PACKAGE if installed else _PACKAGE.parent.parent


def revisions() -> list[str]:
    """The history, oldest first, by the names of its files: asking Alembic would mean to import it,
    which takes a third of a server's start.
    """
    versions = migrations_home() / "migrations" / "versions"
    return sorted(path.name.partition("_")[0] for path in versions.glob("[0-9]*_*.py"))


def head_revision() -> str:
    """The revision that this version needs."""
    return revisions()[-1]


def current_revision(database_url: str) -> str | None:
    """The revision that the store is at; None where it is empty or not there. Writes nothing.

    Blocking: from a running loop, call it in a thread. Raises SchemaUnknown.
    """
    url = parse_url(database_url)
    if not _is_file(url):
        return asyncio.run(_in_engine(migration_engine(database_url), _known_revision))
    path = file_of(url)
    if not path.exists():
        return None
    engine = create_engine("sqlite://", creator=lambda: _open_to_read(path), poolclass=NullPool)
    with engine.connect() as connection:
        return _known_revision(connection)


def require_current(database_url: str) -> None:
    """Raises SchemaBehind or SchemaUnknown for a store that is not at the newest schema."""
    now, head = current_revision(database_url), head_revision()
    if now != head:
        raise SchemaBehind(
            f"The schema of the database is {now or 'empty'}, and this version needs {head}. "
            "Run `orc db upgrade`, then start the server again."
        )


@contextmanager
def owning(database_url: str) -> Generator[None]:
    """Keep every server off an SQLite file meanwhile. Raises StoreOwned where one has it."""
    url = parse_url(database_url)
    if not _is_file(url):
        yield
        return
    lock = OwnerLock(file_of(url))
    lock.acquire()
    try:
        yield
    finally:
        lock.release()


def upgrade(database_url: str) -> None:
    """Bring the store to the newest schema. The caller owns an SQLite file; on PostgreSQL who comes
    second waits for who came first. Raises SchemaUnknown.

    Blocking: from a running loop, call it in a thread.
    """
    asyncio.run(_in_engine(migration_engine(database_url), _upgrade))


def migration_engine(database_url: str) -> AsyncEngine:
    url = parse_url(database_url)
    if not _is_file(url):
        return postgresql_engine(url, pool_size=1)
    file_of(url).parent.mkdir(parents=True, exist_ok=True)
    return sqlite_engine(url, begin="BEGIN IMMEDIATE", synchronous="FULL", size=1)


def _is_file(url: URL) -> bool:
    return url.get_backend_name() == "sqlite"


def _open_to_read(path: Path) -> sqlite3.Connection:
    # A reader of a file in WAL mode makes the log and its index where they are missing, and leaves
    # them there. Without a log nobody writes, and the file alone is the whole truth.
    still = not path.with_name(path.name + "-wal").exists()
    return sqlite3.connect(f"{path.as_uri()}?mode=ro&immutable={int(still)}", uri=True)


async def _in_engine(engine: AsyncEngine, work: Callable[[Connection], T]) -> T:
    try:
        async with engine.begin() as connection:
            return await connection.run_sync(work)
    finally:
        await engine.dispose()


def _known_revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    revision = connection.scalar(text("SELECT version_num FROM alembic_version"))
    if revision is not None and revision not in revisions():
        raise SchemaUnknown(
            f"The store is at the schema {revision}, which this version does not know: a newer "
            "version made it. Install that version, or restore a backup."
        )
    return revision


def _upgrade(connection: Connection) -> None:
    if connection.dialect.name == "postgresql":
        # A build of an index may take longer than the role lets a statement of a server.
        connection.execute(text(_WITHOUT_LIMIT))
        connection.execute(text(f"SELECT pg_advisory_xact_lock({MIGRATION_LOCK})"))
    if _known_revision(connection) == head_revision():
        return
    from alembic import command

    config = alembic_config()
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def alembic_config() -> "Config":
    """What Alembic is to know, wherever the package lies."""
    from alembic.config import Config

    home = migrations_home()
    config = Config(home / "alembic.ini")
    config.set_main_option("script_location", str(home / "migrations").replace("%", "%%"))
    return config
