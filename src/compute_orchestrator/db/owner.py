"""One server process owns an SQLite file. The lock dies with its process, however that dies."""

import fcntl
import os
from pathlib import Path

from compute_orchestrator.domain.errors import StoreOwned


class OwnerLock:
    """An flock on `<file>.lock`. A file with a pid would outlive its process and lie.

    The lock file stays: removing it would let two servers lock two files of one name.
    """

    def __init__(self, database: Path) -> None:
        self._database = database
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Make the folder if need be, and take the lock.

        Raises StoreOwned when another process has it.
        """
        self._database.parent.mkdir(parents=True, exist_ok=True)
        path = self._database.with_name(self._database.name + ".lock")
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise StoreOwned(
                f"Another server already owns {self._database}. One server process owns an SQLite "
                "file; to run several, point ORC_DATABASE_URL at PostgreSQL "
                "(postgresql+asyncpg://...)."
            ) from None
        self._descriptor = descriptor

    def release(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
