"""Every store that the suite runs over, at the newest schema and empty, and the services on it.

A new store is one more entry in `STORES`.
"""

import shutil
from collections.abc import AsyncGenerator, Callable, Generator
from pathlib import Path

import pytest

from compute_orchestrator.db.engine import Store, build_store
from compute_orchestrator.db.migrate import upgrade
from tests.clocks import ManualClock
from tests.postgres import Postgres, running_postgres
from tests.store.house import House


@pytest.fixture(scope="session")
def migrated_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An SQLite file at the newest schema, to be copied."""
    path = tmp_path_factory.mktemp("migrated") / "orc.db"
    upgrade(sqlite_url(path))
    return path


def sqlite_url(path: Path) -> str:
    return f"sqlite+aiosqlite:///{path}"


def empty_sqlite(request: pytest.FixtureRequest) -> str:
    migrated: Path = request.getfixturevalue("migrated_file")
    path = request.getfixturevalue("tmp_path") / "orc.db"
    shutil.copyfile(migrated, path)
    return sqlite_url(path)


@pytest.fixture(scope="session")
def postgres() -> Generator[Postgres]:
    """A PostgreSQL server for all tests of this process."""
    with running_postgres() as server:
        yield server


def empty_postgresql(request: pytest.FixtureRequest) -> str:
    server: Postgres = request.getfixturevalue("postgres")
    url = server.empty()
    request.addfinalizer(lambda: server.give_back(url))
    return url


# Each makes an empty store and answers its URL.
STORES: dict[str, Callable[[pytest.FixtureRequest], str]] = {
    "sqlite": empty_sqlite,
    "postgresql": empty_postgresql,
}


@pytest.fixture(params=sorted(STORES))
def store_url(request: pytest.FixtureRequest) -> str:
    """Where an empty store at the newest schema is."""
    return STORES[request.param](request)


@pytest.fixture
async def store(store_url: str, clock: ManualClock) -> AsyncGenerator[Store]:
    """An empty store whose clock the test moves."""
    # The disk's syncs are not what these tests are about; promises/ has them on.
    store = build_store(store_url, sqlite_synchronous="OFF", clock=clock)
    store.own()
    await store.open()
    try:
        yield store
    finally:
        await store.close()


@pytest.fixture
async def house(store: Store, clock: ManualClock) -> AsyncGenerator[House]:
    """The services on the store."""
    house = House(store, clock)
    try:
        yield house
    finally:
        await house.close()
