"""`orc db copy` as a user calls it: what it says, how it ends, and what is there after it was cut
off in the middle.
"""

import io
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Final, NamedTuple

import pytest
from rich.console import Console
from sqlalchemy import make_url
from typer.testing import CliRunner, Result

from compute_orchestrator.cli.app import app
from compute_orchestrator.cli.copy_view import CopyView
from compute_orchestrator.db.owner import OwnerLock
from tests.databases import TABLES, Database
from tests.stores import STORES, put_empty_store, sqlite_url

ROWS: Final = 300
LONGEST_SECONDS: Final = 50

# The command, which gets a signal when its view was called so often.
CUT: Final = """
import os, sys
from compute_orchestrator.cli.app import main
from compute_orchestrator.cli.copy_view import CopyView

number, method, calls = int(sys.argv.pop(1)), sys.argv.pop(1), int(sys.argv.pop(1))
called = getattr(CopyView, method)


def cut(*words):
    global calls
    called(*words)
    calls -= 1
    if calls == 0:
        os.kill(os.getpid(), number)


setattr(CopyView, method, cut)
main()
"""

STEPS: Final = {"written": ("step", 3), "read back": ("step", 9), "checked": ("checked", 1)}


class Pair(NamedTuple):
    source: Database
    target: Database

    @property
    def is_copied(self) -> bool:
        return self.target.everything() == self.source.everything()

    @property
    def is_target_empty(self) -> bool:
        return self.target.everything() == {table: [] for table in TABLES}


def orc(*words: str) -> Result:
    return CliRunner().invoke(app, list(words), prog_name="orc")


def copy(source: str, target: str, *flags: str) -> Result:
    return orc("db", "copy", source, target, *flags)


def fill(database: Database) -> None:
    values = ", ".join(f"('größe', {number})" for number in range(ROWS))
    database.rows(f"INSERT INTO job_tags (tag, job_id) VALUES {values}")  # noqa: S608 - our own


@pytest.fixture
def source(tmp_path: Path) -> Database:
    """A file with rows in it."""
    source = Database(put_empty_store(tmp_path / "source.db"))
    fill(source)
    return source


@pytest.fixture(params=["sqlite-to-postgresql", "postgresql-to-sqlite"])
def pair(request: pytest.FixtureRequest) -> Pair:
    pair = Pair(*(Database(STORES[kind](request)) for kind in request.param.split("-to-")))
    fill(pair.source)
    return pair


def test_it_has_help_and_needs_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "Usage: orc db copy" in orc("db", "copy", "--help").stdout
    monkeypatch.setitem(sys.modules, "alembic", None)
    refused = copy("a", "b")
    assert refused.exit_code == 2
    assert refused.stderr.startswith("orc: `orc db copy` needs the server")


def test_it_says_what_was_copied_and_what_comes_next(source: Database, tmp_path: Path) -> None:
    target = sqlite_url(tmp_path / "target.db")
    done = copy(source.url, target)
    assert (done.exit_code, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[:4] == [f"{n} % copied and checked (job_tags)" for n in (25, 50, 75, 100)]
    assert lines[4].startswith("Copied 300 rows in ")
    assert "           300 job_tags" in lines
    assert lines[-2] == f"Next: set ORC_DATABASE_URL to {target} and start the servers."
    assert "start no server on it" in lines[-1]
    assert Pair(source, Database(target)).is_copied


def test_a_live_copy_says_that_it_is_one(source: Database, tmp_path: Path) -> None:
    server = OwnerLock(source.file)
    server.acquire()
    refused = copy(source.url, sqlite_url(tmp_path / "target.db"))
    assert refused.exit_code == 1
    assert refused.stderr.startswith("orc: A server has the source, ")
    assert "--live" in refused.stderr
    assert refused.stderr.count("\n") == 1

    done = copy(source.url, sqlite_url(tmp_path / "target.db"), "--live")
    assert done.exit_code == 0
    assert "This is a copy and not a move" in done.stdout
    assert "ORC_DATABASE_URL" not in done.stdout
    server.release()


def test_no_password_is_shown(
    source: Database, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    url = make_url(STORES["postgresql"](request))
    password = url.password or "open-sesame"
    target = url.set(password=password).render_as_string(hide_password=False)
    nowhere = url.set(password=password, database="orc_nowhere")
    for words, code in (
        ((source.url, target), 0),
        ((target, target), 2),
        ((source.url, target), 1),
        ((nowhere.render_as_string(hide_password=False), sqlite_url(tmp_path / "x.db")), 1),
    ):
        said = copy(*words)
        assert said.exit_code == code, said.output
        assert password not in said.output


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["orc.db", "sqlite+aiosqlite:///b.db"], "orc: SOURCE is not a database URL, such as "),
        (["sqlite+aiosqlite:///a.db", "mysql://x/y"], "orc: TARGET must name an SQLite file"),
        (["sqlite+aiosqlite:///a.db"], "Usage: orc db copy"),
    ],
)
def test_a_wrong_call_is_told_apart(
    words: list[str], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    refused = orc("db", "copy", *words)
    assert refused.exit_code == 2
    assert refused.stderr.startswith(sentence)
    assert "Traceback" not in refused.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("words", [("broken", "new"), ("source", "broken")])
def test_what_the_store_says_is_passed_on_in_one_line(
    words: tuple[str, str], source: Database, tmp_path: Path
) -> None:
    (tmp_path / "broken.db").write_bytes(b"not a database " * 100)
    failed = copy(*(sqlite_url(tmp_path / f"{name}.db") for name in words))
    assert failed.exit_code == 1
    assert failed.stderr.startswith("orc: the copy failed, and nothing of it was kept: ")
    assert "file is not a database" in failed.stderr
    assert failed.stderr.count("\n") == 1
    assert source.file.exists()


def cut(pair: Pair, number: signal.Signals, where: str) -> subprocess.CompletedProcess[str]:
    """A real process, which gets a signal in the middle."""
    method, calls = STEPS[where]
    return subprocess.run(
        [
            *(sys.executable, "-c", CUT, str(number.value), method, str(calls)),
            *("db", "copy", pair.source.url, pair.target.url),
        ],
        env={name: value for name, value in os.environ.items() if not name.startswith("ORC_")},
        capture_output=True,
        text=True,
        timeout=LONGEST_SECONDS,
        check=False,
    )


@pytest.mark.process
@pytest.mark.slow
@pytest.mark.parametrize("where", STEPS)
def test_after_kill_minus_nine_the_same_command_ends_well(pair: Pair, where: str) -> None:
    killed = cut(pair, signal.SIGKILL, where)
    assert killed.returncode == -signal.SIGKILL
    assert "Copied" not in killed.stdout
    assert pair.is_target_empty
    assert copy(pair.source.url, pair.target.url).exit_code == 0
    assert pair.is_copied


@pytest.mark.process
@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "where"),
    [(signal.SIGINT, "written"), (signal.SIGINT, "read back"), (signal.SIGTERM, "written")],
)
def test_whoever_stops_it_is_told_that_nothing_was_copied(
    pair: Pair, number: signal.Signals, where: str
) -> None:
    stopped = cut(pair, number, where)
    assert stopped.returncode == 130
    assert stopped.stderr == "orc: stopped before the end; the target is as empty as before\n"
    assert pair.is_target_empty


@pytest.mark.process
@pytest.mark.slow
def test_whoever_stops_it_in_the_last_moment_is_too_late(pair: Pair) -> None:
    done = cut(pair, signal.SIGINT, "checked")
    assert (done.returncode, done.stderr) == (0, "")
    assert "Copied 300 rows" in done.stdout
    assert pair.is_copied


# --- the view


def view(*, terminal: bool) -> CopyView:
    console = Console(file=io.StringIO(), force_terminal=terminal, width=100, highlight=False)
    return CopyView(on_checked=lambda: None, console=console)


def shown(view: CopyView) -> str:
    assert isinstance(view.console.file, io.StringIO)
    return view.console.file.getvalue()


def test_on_a_terminal_there_is_a_bar() -> None:
    live = view(terminal=True)
    with live:
        live.start(1_000)
        live.step("job_events", 500)
    assert "job_events" in shown(live)
    assert " 50%" in shown(live)
    assert "copied and checked" not in shown(live)


def test_elsewhere_progress_is_a_line_a_quarter() -> None:
    plain = view(terminal=False)
    with plain:
        plain.start(1_000)
        for _ in range(100):
            plain.step("jobs", 10)
    assert shown(plain).splitlines() == [
        f"{n} % copied and checked (jobs)" for n in (25, 50, 75, 100)
    ]
