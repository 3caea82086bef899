"""What the figures were measured on: versions, processors, and whether the disk is one."""

import os
import platform
import sqlite3
import statistics
import time
from importlib.metadata import version
from pathlib import Path

import psutil
from pydantic import BaseModel

# A file there is in memory: nothing on it is durable, and fsync costs nothing.
MEMORY_FILE_SYSTEMS = {"tmpfs", "ramfs", "devtmpfs"}
FSYNC_PROBES = 50


class Machine(BaseModel):
    cores: int
    python: str
    sqlite: str
    fastapi: str
    uvicorn: str
    system: str
    # The median of appending 4 KiB and waiting for the disk.
    fsync_ms: float
    # What others took of the processors just before the run, 0 to 1.
    busy: float


def describe(directory: Path) -> Machine:
    return Machine(
        cores=len(os.sched_getaffinity(0)),
        python=platform.python_version(),
        sqlite=sqlite3.sqlite_version,
        fastapi=version("fastapi"),
        uvicorn=version("uvicorn"),
        system=platform.system(),
        fsync_ms=_fsync_ms(directory),
        busy=psutil.cpu_percent(interval=2) / 100,
    )


def file_system_of(directory: Path) -> str:
    """The type of the file system that holds a directory: of the longest mount point above it."""
    mounts = {Path(part.mountpoint): part.fstype for part in psutil.disk_partitions(all=True)}
    resolved = directory.resolve()
    return next((mounts[path] for path in (resolved, *resolved.parents) if path in mounts), "")


def _fsync_ms(directory: Path) -> float:
    path = directory / "fsync.probe"
    taken: list[float] = []
    with path.open("wb", buffering=0) as file:
        for _ in range(FSYNC_PROBES):
            file.write(b"\0" * 4096)
            start = time.perf_counter()
            os.fdatasync(file.fileno())
            taken.append((time.perf_counter() - start) * 1000)
    path.unlink()
    return statistics.median(taken)
