"""Every store that the suite runs over, at the newest schema and empty.

A new store is one more entry in `STORES`.
"""

import tempfile
from collections.abc import AsyncGenerator, Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path

import pytest

from compute_orchestrator.db.engine import Store, build_store
from compute_orchestrator.db.migrate import upgrade
from tests.clocks import ManualClock
from tests.postgres import Postgres, running_postgres


def sqlite_url(path: Path) -> str:
    return f"sqlite+aiosqlite:///{path}"


@lru_cache(maxsize=1)
def _empty_file() -> bytes:
    """Migrated once a process, and copied: a store is there in no time."""
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(1) as threads:
        path = Path(folder) / "empty.db"
        threads.submit(upgrade, sqlite_url(path)).result()  # it runs a loop of its own
        return path.read_bytes()


def put_empty_store(path: Path) -> str:
    """Write a migrated store without jobs to this path. Its database URL."""
    path.write_bytes(_empty_file())
    return sqlite_url(path)


@pytest.fixture(scope="session")
def migrated_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An SQLite file at the newest schema, to be copied."""
    path = tmp_path_factory.mktemp("migrated") / "orc.db"
    put_empty_store(path)
    return path


@pytest.fixture(scope="session")
def postgres() -> Generator[Postgres]:
    """A PostgreSQL server for all tests of this process."""
    with running_postgres() as server:
        yield server


def empty_sqlite(request: pytest.FixtureRequest) -> str:
    factory: pytest.TempPathFactory = request.getfixturevalue("tmp_path_factory")
    return put_empty_store(factory.mktemp("store") / "orc.db")


def empty_postgresql(request: pytest.FixtureRequest) -> str:
    server: Postgres = request.getfixturevalue("postgres")
    url = server.empty()
    request.addfinalizer(lambda: server.give_back(url))
    return url


# Each makes an empty store and answers its URL; it lives as long as what asked for it.
STORES: dict[str, Callable[[pytest.FixtureRequest], str]] = {
    "sqlite": empty_sqlite,
    "postgresql": empty_postgresql,
}


ON_SQLITE = pytest.mark.parametrize("new_store", ["sqlite"], indirect=True)
"""For a test of what has only to do with that one."""


SLOW_ON_POSTGRESQL = pytest.mark.parametrize(
    "new_store", ["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)], indirect=True
)
"""For a test that takes several seconds, and would take as many again."""


@pytest.fixture(params=sorted(STORES))
def new_store(request: pytest.FixtureRequest) -> Callable[[], str]:
    """Makes empty stores of one kind; the test runs once for each kind."""
    return lambda: STORES[request.param](request)


@pytest.fixture
def only_sqlite(request: pytest.FixtureRequest) -> Callable[[], str]:
    """A file of tests that are not about the kind of store says `new_store = only_sqlite`."""
    return lambda: empty_sqlite(request)


@pytest.fixture
def only_postgresql(request: pytest.FixtureRequest) -> Callable[[], str]:
    return lambda: empty_postgresql(request)


@pytest.fixture
def store_url(new_store: Callable[[], str]) -> str:
    """Where an empty store at the newest schema is."""
    return new_store()


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
