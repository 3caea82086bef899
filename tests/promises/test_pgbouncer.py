"""Behind PgBouncer each transaction may be on another connection, and there are fewer than in the
servers' pools: all goes on, also while those are ended. No wheel brings PgBouncer: where it is not
installed these tests are skipped.
"""

import asyncio
import getpass
import os
import shutil
import subprocess
from collections.abc import AsyncGenerator, Generator
from pathlib import Path
from typing import Final

import pytest

from compute_orchestrator.db.migrate import current_revision, head_revision, upgrade
from compute_orchestrator.db.postgresql import POOLED, SESSION_SETTINGS
from tests.clusters import Cluster, running_cluster
from tests.databases import Database
from tests.promises.calls import claim, create, ok, report
from tests.promises.load import (
    all_kinds,
    any_refused,
    load_on,
    nothing_is_half_done,
    taken,
)
from tests.promises.servers import (
    LOCAL,
    ServerProcess,
    connected,
    free_port,
    http_client,
    real_seconds,
    running_server,
    until,
)
from tests.promises.sessions import COUNT, END_ONE
from tests.promises.sessions import connected as connected_to
from tests.promises.stalling import network_to

# Debian puts it where only root looks.
PGBOUNCER: Final = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")

pytestmark = [
    pytest.mark.process,
    pytest.mark.slow,
    pytest.mark.timeout(120),
    pytest.mark.skipif(PGBOUNCER is None, reason="there is no pgbouncer on this machine"),
]

CONNECTIONS: Final = 3
POOL_SIZE: Final = 8
CONFIGURATION: Final = """
[databases]
* = host={folder} user=postgres

[pgbouncer]
listen_addr = {local}
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = {connections}
"""
FOR_THE_ROLE: Final = {
    name: value for name, value in SESSION_SETTINGS.items() if name not in POOLED["server_settings"]
}


@pytest.fixture(scope="module")
def cluster() -> Generator[Cluster]:
    with running_cluster() as cluster:
        yield cluster


@pytest.fixture
def database(cluster: Cluster) -> Generator[Database]:
    url = cluster.databases.empty()
    yield Database(url)
    cluster.databases.drop(url)


@pytest.fixture
async def pooler(cluster: Cluster, tmp_path: Path) -> AsyncGenerator[int]:
    """The port of a PgBouncer in front of the cluster."""
    assert PGBOUNCER is not None
    port, path = free_port(), tmp_path / "pgbouncer.ini"
    path.write_text(
        CONFIGURATION.format(
            folder=cluster.socket.parent, local=LOCAL, port=port, connections=CONNECTIONS
        )
    )
    owner = cluster.socket.owner()
    becoming = ["-u", owner] if owner != getpass.getuser() else []  # it refuses to run as root
    process = subprocess.Popen(  # noqa: ASYNC220 - it is there at once
        [PGBOUNCER, "-q", *becoming, path], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )

    async def listens() -> bool:
        try:
            async with connected(port):
                return True
        except ConnectionRefusedError:
            return False

    try:
        await until(listens)
        yield port
    finally:
        process.terminate()
        process.wait()


@pytest.fixture
def role(cluster: Cluster) -> Generator[None]:
    """What the docs say to set, set."""
    for name, value in FOR_THE_ROLE.items():
        cluster.databases.command(f"ALTER ROLE postgres SET {name} = '{value}'")
    yield
    cluster.databases.command("ALTER ROLE postgres RESET ALL")


def url_of(database: Database, port: int, query: str = "") -> str:
    name = database.url.partition("?")[0].rpartition("/")[2]
    return f"postgresql://postgres@{LOCAL}:{port}/{name}{query}"


@pytest.mark.usefixtures("role")
@pytest.mark.parametrize("direct", [False, True], ids=["alone", "and a direct way"])
async def test_two_servers_behind_it_live_through_ended_connections(
    cluster: Cluster, database: Database, pooler: int, tmp_path: Path, direct: bool
) -> None:
    async with network_to(cluster.socket) as network:
        address = f"&direct={LOCAL}:{network.port}" if direct else ""
        url = url_of(database, pooler, f"?pgbouncer=true{address}")
        settings = {"database_url": url, "postgres_pool_size": POOL_SIZE, "log_level": "info"}
        async with (
            running_server(tmp_path, **settings) as one,
            running_server(tmp_path, **settings) as other,
            http_client(one.url) as to_one,
            http_client(other.url) as to_other,
            load_on(to_one) as load,
            load_on(to_other) as more,
        ):
            async with connected_to(database.url) as operator:
                for _ in range(20):
                    await operator.execute(END_ONE)
                    await real_seconds(0.1)
                assert await operator.fetchval(COUNT) <= CONNECTIONS + 2 * direct
            await until(lambda: any_refused(load))
            await all_kinds(load, taken)
            await all_kinds(more, taken)
            load.done = more.done = True
            for each in load, more:
                ok(await report(each.http, each.lease, "succeeded"))
            # Who waits on one server hears of what was created on the other.
            waiting = asyncio.create_task(claim(to_one, queues=["later"], wait_seconds=30))
            await real_seconds(0.1)
            created = await create(to_other, queue="later")
            job = await waiting
            assert job is not None
            assert job["id"] == created["id"]
            log = one.log
    nothing_is_half_done(database, load, more)
    assert "Traceback" not in log
    assert "ALTER ROLE" not in log


async def test_a_server_says_what_is_to_be_set_for_its_role(
    database: Database, pooler: int, tmp_path: Path
) -> None:
    url = url_of(database, pooler, "?pgbouncer=true")
    async with running_server(tmp_path, database_url=url) as server:
        for name, value in FOR_THE_ROLE.items():
            advice = f"ALTER ROLE CURRENT_USER SET {name} = '{value}'"
            assert (advice in server.log) == (name != "default_transaction_isolation")


async def test_without_a_word_in_the_url_a_server_refuses_to_start(
    database: Database, pooler: int, tmp_path: Path
) -> None:
    server = ServerProcess(tmp_path, database_url=url_of(database, pooler))
    try:
        await server.spawn()
        assert await server.wait() == 1
    finally:
        await server.end()
    assert "unsupported startup parameter" in server.log


async def test_a_schema_can_be_brought_up_to_date_through_it(cluster: Cluster, pooler: int) -> None:
    cluster.databases.command("CREATE DATABASE fresh")
    url = f"postgresql://postgres@{LOCAL}:{pooler}/fresh?pgbouncer=true"
    await asyncio.to_thread(upgrade, url)
    assert await asyncio.to_thread(current_revision, url) == head_revision()
