"""Health: ready only while the store answers and can be written, its schema is current and the
reaper is awake.
"""

import asyncio
import sqlite3

import pytest

from compute_orchestrator.db.migrate import head_revision
from compute_orchestrator.db.sessions import ReadSession
from compute_orchestrator.domain.errors import StoreUnavailable
from compute_orchestrator.services import health as health_module
from compute_orchestrator.services.health import (
    FRESH_GRACE_SECONDS,
    FRESH_INTERVALS,
    HealthService,
)
from tests.postgres import Postgres
from tests.services.fakes import trouble
from tests.store.house import INTERVAL_SECONDS, House, run

FRESH = FRESH_INTERVALS * INTERVAL_SECONDS + FRESH_GRACE_SECONDS


def health_of(house: House, schema: str | None = None) -> HealthService:
    return HealthService(
        house.transactions,
        house.store,
        house.reaper,
        schema=schema or head_revision(),
        reaper_interval_seconds=INTERVAL_SECONDS,
    )


async def test_a_server_is_ready_after_its_first_pass(house: House) -> None:
    health = health_of(house)
    before = await health.readiness()
    assert (before.ready, before.last_pass_seconds) == (False, None)
    await house.reaper.reap_once()
    after = await health.readiness()
    assert after.ready
    assert (after.store, after.synchronous) == (house.store.dialect, house.store.synchronous)
    assert after.schema == head_revision()


async def test_a_reaper_that_sleeps_too_long_makes_a_server_unready(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    health, loop = health_of(house), asyncio.get_running_loop()
    with monkeypatch.context() as patch:
        patch.setattr(loop, "time", lambda: 100.0)
        await house.reaper.reap_once()
        patch.setattr(loop, "time", lambda: 100.0 + FRESH)
        assert (await health.readiness()).ready
        patch.setattr(loop, "time", lambda: 100.5 + FRESH)
        readiness = await health.readiness()
        assert (readiness.ready, readiness.last_pass_seconds) == (False, FRESH + 0.5)


async def test_a_store_that_does_not_answer_makes_a_server_unready(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    await house.reaper.reap_once()

    async def fail(*_: object, **__: object) -> None:
        raise trouble(sqlite3.SQLITE_IOERR)

    with monkeypatch.context() as patch:
        patch.setattr(ReadSession, "fetch", fail)
        readiness = await health_of(house).readiness()
        assert (readiness.ready, readiness.schema) == (False, None)
    assert (await health_of(house).readiness()).ready


async def test_a_schema_that_is_not_the_newest_makes_a_server_unready(house: House) -> None:
    await house.reaper.reap_once()
    readiness = await health_of(house, schema="another").readiness()
    assert (readiness.ready, readiness.schema) == (False, head_revision())


async def test_a_store_without_a_schema_makes_a_server_unready(house: House) -> None:
    await house.reaper.reap_once()
    await run(house.store, "DROP TABLE alembic_version")
    readiness = await health_of(house).readiness()
    assert (readiness.ready, readiness.schema) == (False, None)


async def test_a_store_that_stands_still_makes_a_server_unready_in_time(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    await house.reaper.reap_once()
    given_up = asyncio.Event()

    async def stand_still(*_: object, **__: object) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            given_up.set()

    with monkeypatch.context() as patch:
        patch.setattr(health_module, "ANSWER_SECONDS", 0.01)
        patch.setattr(ReadSession, "fetch", stand_still)
        readiness = await health_of(house).readiness()
        assert (readiness.ready, readiness.schema) == (False, None)
        await given_up.wait()
    assert (await health_of(house).readiness()).ready


@pytest.mark.parametrize("new_store", ["postgresql"], indirect=True)
async def test_a_database_that_is_read_only_makes_a_server_unready_until_it_can_be_written(
    house: House, postgres: Postgres, store_url: str
) -> None:
    """Connections that were made meanwhile are not kept: they could only read for ever."""
    await house.reaper.reap_once()
    database = store_url.partition("?")[0].rpartition("/")[2]
    postgres.command(f"ALTER DATABASE {database} SET default_transaction_read_only = on")
    await house.store.close()  # and the next call connects anew
    readiness = await health_of(house).readiness()
    assert (readiness.ready, readiness.synchronous) == (False, "read-only")
    assert readiness.schema == head_revision()
    with pytest.raises(StoreUnavailable):
        await house.create()
    await health_of(house).readiness()
    postgres.command(f"ALTER DATABASE {database} RESET default_transaction_read_only")
    # Nobody sends calls to a server that is not ready: its probes alone must find out.
    async with asyncio.timeout(10):
        while not (await health_of(house).readiness()).ready:
            pass
    await house.create()
