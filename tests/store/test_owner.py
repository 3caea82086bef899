"""One server process owns an SQLite file, as long as it lives and no longer."""

import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from compute_orchestrator.db.engine import build_store
from compute_orchestrator.db.owner import OwnerLock
from compute_orchestrator.domain.errors import StoreOwned
from tests.stores import sqlite_url

OWN = """
import sys
from pathlib import Path
from compute_orchestrator.db.owner import OwnerLock
from compute_orchestrator.domain.errors import StoreOwned

lock = OwnerLock(Path(sys.argv[1]))
try:
    lock.acquire()
except StoreOwned as refusal:
    print(refusal.detail, flush=True)
else:
    print("owned", flush=True)
sys.stdin.read()
"""


@contextmanager
def another_process(path: Path) -> Generator[tuple[subprocess.Popen[str], str]]:
    """A process that tries to own the file, and what it said of it; it lives until the end."""
    with subprocess.Popen(
        [sys.executable, "-c", OWN, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout
            yield process, process.stdout.readline().strip()
        finally:
            process.kill()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "orc.db"


@pytest.mark.process
def test_a_second_process_is_told_who_is_in_the_way_and_the_way_out(path: Path) -> None:
    lock = OwnerLock(path)
    lock.acquire()
    with another_process(path) as (_, said):
        assert str(path) in said
        assert "PostgreSQL" in said
    lock.release()
    with another_process(path) as (_, said):
        assert said == "owned"


@pytest.mark.process
def test_the_lock_dies_with_its_process_however_that_dies(path: Path) -> None:
    lock = OwnerLock(path)
    with another_process(path) as (process, said):
        assert said == "owned"
        with pytest.raises(StoreOwned):
            lock.acquire()
        process.kill()
        process.wait()
        lock.acquire()
    lock.release()


@pytest.mark.process
def test_a_child_that_outlives_the_server_does_not_keep_the_lock(path: Path) -> None:
    lock = OwnerLock(path)
    lock.acquire()
    program = [sys.executable, "-c", "import sys; print('here', flush=True); sys.stdin.read()"]
    with subprocess.Popen(
        program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, close_fds=False
    ) as child:
        try:
            assert child.stdout
            child.stdout.readline()
            lock.release()
            lock.acquire()
            lock.release()
        finally:
            child.kill()


def test_a_second_owner_in_the_same_process_is_refused_too(path: Path) -> None:
    first, second = OwnerLock(path), OwnerLock(path)
    first.acquire()
    with pytest.raises(StoreOwned):
        second.acquire()
    first.release()
    second.acquire()
    second.release()


async def test_a_file_has_one_owner_by_whatever_name_it_is_called(
    path: Path, tmp_path: Path
) -> None:
    by_file, by_folder = tmp_path / "link.db", tmp_path / "folder"
    by_file.symlink_to(path)
    by_folder.symlink_to(tmp_path)
    owner = build_store(sqlite_url(path))
    owner.own()
    for name in (by_file, by_folder / "orc.db", by_folder / "link.db"):
        other = build_store(sqlite_url(name))
        with pytest.raises(StoreOwned):
            other.own()
        await other.close()
    await owner.close()


def test_the_lock_file_stays_so_that_two_servers_never_lock_two_files_of_one_name(
    path: Path,
) -> None:
    lock = OwnerLock(path)
    lock.acquire()
    held = path.with_name("orc.db.lock").stat().st_ino
    lock.release()
    lock.release()
    assert path.with_name("orc.db.lock").stat().st_ino == held
