"""The PostgreSQL store with `?pgbouncer=true`, as it is behind a pooler by transaction. Here there
is none in between; `tests/promises/test_pgbouncer.py` has a real one.
"""

import asyncio
import socket
from collections.abc import AsyncGenerator
from contextlib import closing

import pytest
from sqlalchemy import text

from compute_orchestrator.db.engine import Store, build_store
from compute_orchestrator.db.postgresql import SESSION_SETTINGS
from compute_orchestrator.domain.errors import StoreUnavailable, UnsupportedStore
from tests.clocks import ManualClock
from tests.store.house import House
from tests.stores import only_postgresql

NAMED = text("SELECT count(*) FROM pg_prepared_statements")

new_store = only_postgresql


@pytest.fixture
async def pooled(store_url: str) -> AsyncGenerator[Store]:
    store = build_store(f"{store_url}&pgbouncer=true", postgres_pool_size=1)
    yield store
    await store.close()


async def test_no_statement_is_kept_on_a_connection(pooled: Store) -> None:
    house = House(pooled, ManualClock())
    for name in ("first", "second"):
        job = await house.create(name)
        assert (await house.jobs.get(job.id)).name == name
    await house.reaper.reap_once()
    async with pooled.writing() as (session, _):
        assert (await session.execute(NAMED)).scalar() == 0
    await house.close()


async def test_the_settings_that_no_pooler_takes_are_asked_for(
    pooled: Store, caplog: pytest.LogCaptureFixture
) -> None:
    await pooled.open()
    async with pooled.reading() as (session, _):
        found = {
            name: (await session.execute(text(f"SHOW {name}"))).scalar()
            for name in SESSION_SETTINGS
        }
    assert found["application_name"] == SESSION_SETTINGS["application_name"]
    assert found["timezone"] == SESSION_SETTINGS["timezone"]
    other = {name for name, value in SESSION_SETTINGS.items() if found[name] != value}
    assert {"idle_in_transaction_session_timeout", "lock_timeout"} <= other
    assert len(caplog.messages) == len(other)
    for name in other:
        advice = f"ALTER ROLE CURRENT_USER SET {name} = '{SESSION_SETTINGS[name]}'"
        assert advice in caplog.text


async def test_on_a_direct_connection_nothing_is_asked_for(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    await store.open()
    assert caplog.messages == []


async def test_without_a_direct_way_nothing_is_told(pooled: Store, store: Store) -> None:
    heard: asyncio.Queue[str] = asyncio.Queue()
    async with (
        store.channel(heard.put_nowait, lambda: None),
        store.channel(heard.put_nowait, lambda: None) as tell,
        pooled.channel(heard.put_nowait, lambda: None) as tell_nobody,
    ):
        await tell_nobody("not to be heard")
        await tell("to be heard by the other one")
        async with asyncio.timeout(20):
            assert await heard.get() == "to be heard by the other one"
    assert heard.empty()


@pytest.mark.parametrize("words", ["pgbouncer=false", "pgbouncer=true&direct=db"])
async def test_words_about_a_pooler_that_mean_nothing_are_refused(
    store_url: str, words: str
) -> None:
    with pytest.raises(UnsupportedStore):
        build_store(f"{store_url}&{words}")


async def test_the_direct_way_is_taken_where_it_is_given(store_url: str) -> None:
    with closing(socket.socket()) as kept:
        kept.bind(("127.0.0.1", 0))
        port = kept.getsockname()[1]
        store = build_store(f"{store_url}&pgbouncer=true&direct=127.0.0.1:{port}")
        with pytest.raises(StoreUnavailable, match=f"127.0.0.1.*{port}"):
            async with store.channel(lambda _: None, lambda: None):
                pytest.fail("nobody listens there")
        await store.close()
