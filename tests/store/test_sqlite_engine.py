"""The SQLite store: durable unless told otherwise, one writer that locks first, readers that only
read, and errors that are told apart.
"""

import asyncio
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError, OperationalError

from compute_orchestrator.db.engine import build_store
from compute_orchestrator.db.sqlite import SqliteStore
from compute_orchestrator.domain.errors import UnsupportedStore
from compute_orchestrator.domain.values import Micros
from tests.clocks import START, ManualClock
from tests.stores import only_sqlite, sqlite_url

FULL, NORMAL = 2, 1


new_store = only_sqlite


@pytest.fixture
def file(migrated_file: Path, tmp_path: Path) -> Path:
    path = tmp_path / "orc.db"
    path.write_bytes(migrated_file.read_bytes())
    return path


async def asked(session: Any, pragma: str) -> Any:
    return (await session.execute(text(f"PRAGMA {pragma}"))).scalar()


@pytest.mark.parametrize(
    ("wish", "level"), [({}, FULL), ({"sqlite_synchronous": "normal"}, NORMAL)]
)
async def test_a_store_is_durable_unless_told_otherwise(
    file: Path, wish: dict[str, Any], level: int
) -> None:
    store = build_store(sqlite_url(file), **wish)
    async with store.writing() as (writer, _), store.reading() as (reader, _):
        for session in (writer, reader):
            assert await asked(session, "journal_mode") == "wal"
            assert await asked(session, "busy_timeout") > 0
        assert await asked(writer, "synchronous") == level
        assert await asked(writer, "query_only") == 0
        assert await asked(reader, "query_only") == 1
    await store.close()


async def test_the_writer_locks_before_it_reads_the_time(file: Path) -> None:
    """Else a writer that waited for the lock would write with the time of before."""

    class Looking(ManualClock):
        locked: bool | None = None

        def now(self) -> Micros:
            with sqlite3.connect(file, timeout=0, isolation_level=None) as other:
                try:
                    other.execute("BEGIN IMMEDIATE")
                except sqlite3.OperationalError:
                    self.locked = True
                else:
                    self.locked = False
            other.close()
            return super().now()

    clock = Looking()
    store = build_store(sqlite_url(file), clock=clock)
    async with store.writing() as (_, session):
        assert clock.locked
        assert session.now == START
    async with store.reading() as (_, reading):
        assert not clock.locked
        assert reading.now == START
    await store.close()


async def test_writers_take_turns(store: SqliteStore) -> None:
    story: list[str] = []

    async def write(name: str, wait_for: asyncio.Event, tell: asyncio.Event) -> None:
        async with store.writing() as (session, _):
            story.append(f"{name} begins")
            tell.set()
            await wait_for.wait()
            await session.execute(
                text("INSERT INTO queues (name, paused) VALUES (:name, 0)"), {"name": name}
            )
            story.append(f"{name} ends")
            await session.commit()

    began, go = asyncio.Event(), asyncio.Event()
    go_at_once = asyncio.Event()
    go_at_once.set()
    async with asyncio.TaskGroup() as group:
        group.create_task(write("one", go, began))
        await began.wait()
        group.create_task(write("two", go_at_once, asyncio.Event()))
        group.create_task(write("three", go_at_once, asyncio.Event()))
        # A whole read goes by: the others have had their chance.
        async with store.reading() as (session, _):
            await session.execute(text("SELECT 1"))
        go.set()
    assert story == [
        *("one begins", "one ends"),
        *("two begins", "two ends"),
        *("three begins", "three ends"),
    ]


async def test_a_reader_can_not_write(store: SqliteStore) -> None:
    async with store.reading() as (session, _):
        with pytest.raises(OperationalError, match="readonly"):
            await session.execute(text("INSERT INTO queues (name, paused) VALUES ('q', 0)"))


async def test_a_reader_sees_one_moment_and_keeps_no_writer_out(store: SqliteStore) -> None:
    count = text("SELECT count(*) FROM queues")
    async with store.reading() as (reader, _):
        assert (await reader.execute(count)).scalar() == 0
        async with store.writing() as (writer, _):
            await writer.execute(text("INSERT INTO queues (name, paused) VALUES ('q', 0)"))
            await writer.commit()
        assert (await reader.execute(count)).scalar() == 0
    async with store.reading() as (reader, _):
        assert (await reader.execute(count)).scalar() == 1


async def test_what_was_not_committed_is_gone(store: SqliteStore) -> None:
    async with store.writing() as (writer, _):
        await writer.execute(text("INSERT INTO queues (name, paused) VALUES ('q', 0)"))
    async with store.reading() as (reader, _):
        assert (await reader.execute(text("SELECT count(*) FROM queues"))).scalar() == 0


def driver_error(code: int | None) -> OperationalError:
    error = sqlite3.OperationalError("from a test")
    if code is not None:
        error.sqlite_errorcode = code
    return OperationalError("SELECT 1", {}, error)


@pytest.mark.parametrize(
    ("code", "fault"),
    [
        (sqlite3.SQLITE_ERROR, True),
        (sqlite3.SQLITE_CONSTRAINT, True),
        (sqlite3.SQLITE_CONSTRAINT_UNIQUE, True),
        (sqlite3.SQLITE_TOOBIG, True),
        (sqlite3.SQLITE_MISMATCH, True),
        (sqlite3.SQLITE_BUSY, False),
        (sqlite3.SQLITE_BUSY_SNAPSHOT, False),
        (sqlite3.SQLITE_LOCKED, False),
        (sqlite3.SQLITE_FULL, False),
        (sqlite3.SQLITE_IOERR, False),
        (sqlite3.SQLITE_IOERR_FSYNC, False),
        (sqlite3.SQLITE_READONLY, False),
        (sqlite3.SQLITE_CORRUPT, False),
        (sqlite3.SQLITE_NOTADB, False),
        (sqlite3.SQLITE_CANTOPEN, False),
        (sqlite3.SQLITE_NOMEM, False),
        (sqlite3.SQLITE_PERM, False),
        (None, False),
    ],
)
def test_the_stores_trouble_is_told_from_the_faults_of_data(
    store: SqliteStore, code: int | None, fault: bool
) -> None:
    assert store.is_fault_of_data(driver_error(code)) is fault


async def test_real_faults_of_data_are_known_as_such(store: SqliteStore) -> None:
    insert = text("INSERT INTO queues (name, paused) VALUES ('q', 0)")
    async with store.writing() as (writer, _):
        await writer.execute(insert)
        with pytest.raises(IntegrityError) as twice:
            await writer.execute(insert)
    assert store.is_fault_of_data(twice.value)
    async with store.writing() as (writer, _):
        with pytest.raises(OperationalError) as malformed:
            await writer.execute(text("SELECT * FROM json_each('{')"))
    assert store.is_fault_of_data(malformed.value)
    assert not store.is_fault_of_data(ValueError())


@pytest.mark.parametrize(
    "url",
    [
        "",
        "orc.db",
        "sqlite:///orc.db",
        "sqlite+aiosqlite://",
        "sqlite+aiosqlite:///:memory:",
        "postgresql+psycopg://me:secret@host/orc",
        "mysql://me:secret@host/orc",
    ],
)
def test_a_store_of_another_kind_is_refused_without_telling_its_password(url: str) -> None:
    with pytest.raises(UnsupportedStore, match="ORC_DATABASE_URL") as refused:
        build_store(url)
    assert "secret" not in refused.value.detail


def test_an_sqlite_library_too_old_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 37, 2))
    with pytest.raises(UnsupportedStore, match=r"3\.38\.0"):
        build_store(sqlite_url(tmp_path / "orc.db"))
