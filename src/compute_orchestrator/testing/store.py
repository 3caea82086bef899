"""An empty store in memory: a real SQLite file, on the machine's RAM disk where it has one.

An SQLite database without a file can't be shared by a writer and its readers in the way that the
server needs: it has no WAL, and its readers lock the writer out.
"""

import os
import shutil
import tempfile
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

from compute_orchestrator.db.migrate import upgrade

RAM_DISK = Path("/dev/shm")  # noqa: S108 - each store has a folder of its own in it
ENOUGH_BYTES = 32 * 1024 * 1024
"""In a container the RAM disk may be smaller than one big test."""


@contextmanager
def empty_store() -> Generator[Path]:
    """A file at the newest schema, which is gone afterwards."""
    with _folder() as folder:
        file = folder / "orc.db"
        file.write_bytes(_empty_file())
        yield file


def is_in_memory(file: Path) -> bool:
    """Whether a sync of this file costs nothing, and saves nothing."""
    return file.is_relative_to(RAM_DISK)


def url_of(file: Path) -> str:
    return f"sqlite+aiosqlite:///{file}"


@contextmanager
def _folder() -> Generator[Path]:
    usable = RAM_DISK.is_dir() and os.access(RAM_DISK, os.W_OK)
    fast = usable and shutil.disk_usage(RAM_DISK).free >= ENOUGH_BYTES
    place = RAM_DISK if fast else None
    with tempfile.TemporaryDirectory(prefix="orc-", dir=place) as folder:
        yield Path(folder)


@lru_cache(maxsize=1)
def _empty_file() -> bytes:
    """Migrated once a process, and copied for each test."""
    with _folder() as folder, ThreadPoolExecutor(1) as threads:
        file = folder / "empty.db"
        threads.submit(upgrade, url_of(file)).result()  # it runs a loop of its own
        return file.read_bytes()
