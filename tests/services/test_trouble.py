"""The store in trouble: every caller of the turn is told to ask again, and nothing is half done."""

import asyncio
import sqlite3
from collections.abc import Generator, Sequence
from contextlib import contextmanager

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from compute_orchestrator.db.engine import Store
from compute_orchestrator.db.sessions import WriteSession
from compute_orchestrator.db.sqlite import SqliteStore
from compute_orchestrator.domain.errors import StoreUnavailable
from tests.services.fakes import Notes, called, hold, noted, submit, trouble
from tests.store.house import House
from tests.stores import ON_SQLITE


async def pragma(store: Store, setting: str) -> None:
    """Set something on the writer's connection, for the rest of its life."""
    async with store.writing() as (session, _):
        await session.execute(text(f"PRAGMA {setting}"))
        await session.commit()


@contextmanager
def locked_by_another(store: Store) -> Generator[None]:
    """Another connection holds the store's write lock."""
    assert isinstance(store, SqliteStore)
    other = sqlite3.connect(store.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        other.close()


def all_must_ask_again(outcomes: Sequence[object]) -> bool:
    return bool(outcomes) and all(isinstance(one, StoreUnavailable) for one in outcomes)


@ON_SQLITE
async def test_a_busy_store_refuses_the_whole_turn_and_writes_nothing(
    store: Store, house: House
) -> None:
    notes = Notes()
    await pragma(store, "busy_timeout = 1")
    with locked_by_another(store):
        callers = submit(house.coalescer, notes, ["a", "b", "c"])
        assert all_must_ask_again(await asyncio.gather(*callers, return_exceptions=True))
        assert await noted(house) == set()
    assert notes.batches == []
    assert await house.coalescer.submit(notes.operation, "a") == "noted a"


async def test_a_commit_that_fails_refuses_the_whole_turn_and_is_never_run_again(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes = Notes()
    with monkeypatch.context() as patch:

        async def fail(_: AsyncSession) -> None:
            raise trouble(sqlite3.SQLITE_IOERR)

        patch.setattr(AsyncSession, "commit", fail)
        callers = submit(house.coalescer, notes, ["a", "b", "c"])
        assert all_must_ask_again(await asyncio.gather(*callers, return_exceptions=True))
    assert notes.batches == [["a", "b", "c"]]
    assert await noted(house) == set()
    assert await house.coalescer.submit(notes.operation, "a") == "noted a"


async def test_a_commit_that_fails_wakes_nobody(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:

        async def fail(_: AsyncSession) -> None:
            raise trouble(sqlite3.SQLITE_IOERR)

        patch.setattr(AsyncSession, "commit", fail)
        with pytest.raises(StoreUnavailable):
            await house.create(run_in_seconds=5)
    assert not house.wakeups.delayed.is_set()
    await house.create(run_in_seconds=5)
    assert house.wakeups.delayed.is_set()


@pytest.mark.parametrize("code", [sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL, sqlite3.SQLITE_BUSY])
async def test_a_statement_that_fails_over_the_store_is_not_run_again(
    house: House, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    notes = Notes()
    with monkeypatch.context() as patch:

        async def fail(*_: object, **__: object) -> None:
            raise trouble(code)

        patch.setattr(WriteSession, "run", fail)
        callers = submit(house.coalescer, notes, ["a", "b"])
        assert all_must_ask_again(await asyncio.gather(*callers, return_exceptions=True))
    assert notes.batches == [["a", "b"]]
    assert await noted(house) == set()


@ON_SQLITE
async def test_a_disk_that_fills_up_while_calls_run_one_by_one_leaves_nothing_half_done(
    store: Store, house: House
) -> None:
    """SQLite ends the whole transaction by itself then: what ran before in it is lost too."""
    async with store.reading() as (session, _):
        pages: int = (await session.execute(text("PRAGMA page_count"))).scalar_one()
    await pragma(store, f"max_page_count = {pages + 60}")
    poison, notes = Notes("poison", rank=1), Notes()
    await house.coalescer.submit(poison.operation, "poison")
    await hold(house.coalescer, notes)
    callers = submit(house.coalescer, poison, ["poison"])
    callers += submit(house.coalescer, notes, ["small", "large " + "x" * 2_000_000, "last"])
    await called()
    notes.go.set()
    assert all_must_ask_again(await asyncio.gather(*callers, return_exceptions=True))
    assert [len(items) for items in notes.batches] == [1, 1, 1], "the turn ran one by one"
    await pragma(store, "max_page_count = 1000000")
    assert await noted(house) == {"poison", "first"}
    assert await house.coalescer.submit(notes.operation, "after") == "noted after"


async def test_trouble_in_the_code_of_a_whole_turn_refuses_it(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes = Notes()
    with monkeypatch.context() as patch:

        def fail(_: WriteSession) -> None:
            raise RuntimeError("from a test")

        patch.setattr(WriteSession, "savepoint", fail)
        patch.setattr(WriteSession, "take_unwritten", fail)
        callers = submit(house.coalescer, notes, ["a", "b"])
        assert all_must_ask_again(await asyncio.gather(*callers, return_exceptions=True))
    assert await noted(house) == set()
    assert await house.coalescer.submit(notes.operation, "a") == "noted a"
