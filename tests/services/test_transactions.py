"""Transactions: committed wholly or not at all, and what the driver throws is told apart."""

import asyncio
import logging
import sqlite3

import pytest
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncSession

from compute_orchestrator.db.sessions import ReadSession, Statement, WriteSession
from compute_orchestrator.db.statements.create import create_jobs
from compute_orchestrator.db.statements.read import find_jobs
from compute_orchestrator.db.statements.rows import batch
from compute_orchestrator.domain.errors import JobNotFound, StoreUnavailable
from compute_orchestrator.domain.values import JobId
from tests.builders import new_job
from tests.services.fakes import NOTE, noted, trouble
from tests.store.house import House, trail

MALFORMED = Statement(
    sqlite="SELECT value FROM json_each(:json)",
    postgresql="SELECT CAST(CAST(:json AS text) AS json)",
)


async def note(session: WriteSession, *names: str) -> None:
    """Each name is a job and a row; one that is there already is a fault of the data."""
    await create_jobs(session, [new_job(name) for name in names])
    await session.run(NOTE, names=batch(names))


async def write(house: House, *names: str, error: Exception | None = None) -> None:
    """One transaction."""
    async with house.transactions.write() as session:
        await note(session, *names)
        if error is not None:
            raise error


async def read_malformed(house: House) -> None:
    async with house.transactions.read() as session:
        await session.fetch(MALFORMED, json="{")


async def note_in_a_savepoint(session: WriteSession, *names: str) -> None:
    async with session.savepoint():
        await note(session, *names)


async def test_the_trail_is_written_in_the_transaction_of_the_change(house: House) -> None:
    async with house.transactions.write() as session:
        (job,) = await create_jobs(session, [new_job()])
    assert [step["action"] for step in await trail(house.store, job.id)] == ["create"]


@pytest.mark.parametrize("error", [JobNotFound(JobId(1)), ValueError("from a test")])
async def test_an_error_inside_undoes_everything_and_passes_through(
    house: House, error: Exception
) -> None:
    with pytest.raises(type(error)) as raised:
        await write(house, "a", error=error)
    assert raised.value is error
    assert await noted(house) == set()


async def test_who_is_cancelled_inside_leaves_no_transaction_open(house: House) -> None:
    inside = asyncio.Event()

    async def work() -> None:
        async with house.transactions.write() as session:
            await note(session, "a")
            inside.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await inside.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await write(house, "b")
    assert await noted(house) == {"b"}


async def test_a_fault_of_the_data_passes_through(house: House) -> None:
    with pytest.raises(IntegrityError):
        await write(house, "a", "a")
    with pytest.raises(DBAPIError, match=r"(?i)json"):
        await read_malformed(house)
    assert await noted(house) == set()


@pytest.mark.parametrize(
    "error",
    [
        trouble(sqlite3.SQLITE_IOERR),
        trouble(sqlite3.SQLITE_FULL),
        trouble(sqlite3.SQLITE_CORRUPT),
        PoolTimeout("no connection is free"),
    ],
    ids=lambda error: str(getattr(error, "orig", error)),
)
async def test_the_stores_trouble_becomes_one_error_and_its_cause_is_logged(
    house: House,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: Exception,
) -> None:
    async def fail(*_: object, **__: object) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(ReadSession, "fetch", fail)
        for transaction in (house.transactions.read, house.transactions.write):
            with pytest.raises(StoreUnavailable) as away:
                async with transaction() as session:
                    await find_jobs(session, [JobId(1)])
            assert away.value.retry_after_seconds > 0
    cause = str(getattr(error, "orig", error))
    for what in ("read", "write"):
        assert f"the store is not available to {what}: {cause}" in caplog.text
    caplog.set_level(logging.INFO)
    await house.create()
    assert "the store is available to write again" in caplog.text
    assert "the store is available to read again" not in caplog.text, "nobody knows yet"


async def test_a_savepoint_forgets_what_failed_in_it_and_no_more(house: House) -> None:
    async with house.transactions.write() as session:
        await note(session, "before")
        with pytest.raises(IntegrityError):
            await note_in_a_savepoint(session, "inside", "before")
        await note(session, "after")
    assert await noted(house) == {"before", "after"}


async def test_a_failed_commit_is_rolled_back(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:

        async def fail(_: AsyncSession) -> None:
            raise trouble(sqlite3.SQLITE_FULL)

        patch.setattr(AsyncSession, "commit", fail)
        with pytest.raises(StoreUnavailable):
            await write(house, "a")
    assert await noted(house) == set()
    await write(house, "b")
    assert await noted(house) == {"b"}


async def test_only_a_job_for_later_wakes_the_promoter(house: House) -> None:
    await house.create()
    assert not house.wakeups.delayed.is_set()
    await house.create(run_in_seconds=1)
    assert house.wakeups.delayed.is_set()
