"""What the commands say and how they end, called in this process."""

import re
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import pytest
from typer.core import TyperGroup
from typer.main import get_group
from typer.testing import CliRunner, Result

from compute_orchestrator.cli.app import app
from compute_orchestrator.cli.plain import SERVER_PACKAGES
from compute_orchestrator.db.owner import OwnerLock

pytestmark = pytest.mark.usefixtures("no_settings")


def orc(*words: str) -> Result:
    return CliRunner().invoke(app, list(words), prog_name="orc")


@pytest.fixture
def no_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A user's own settings and folder are not what is tested."""
    monkeypatch.delenv("ORC_DATABASE_URL", raising=False)
    monkeypatch.delenv("ORC_PORT", raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def database_url(tmp_path: Path) -> str:
    return f"sqlite+aiosqlite:///{tmp_path / 'orc.db'}"


def test_every_command_has_help() -> None:
    called: list[str] = []

    def look(group: TyperGroup, *above: str) -> None:
        for name, command in group.commands.items():
            shown = orc(*above, name, "--help")
            assert shown.exit_code == 0
            assert " ".join(("Usage: orc", *above, name)) in shown.output
            called.append(name)
            if isinstance(command, TyperGroup):
                look(command, *above, name)

    look(get_group(app))
    assert {"submit", "jobs", "cancel", "queues", "pause", "top", "serve", "copy"} <= set(called)


def test_version() -> None:
    shown = orc("--version")
    assert shown.exit_code == 0
    assert re.fullmatch(r"orc \d+\.\d+\.\d+\S*\n", shown.output)


@pytest.mark.parametrize("words", [["serve"], ["demo"], ["db", "upgrade"], ["db", "current"]])
@pytest.mark.parametrize("missing", SERVER_PACKAGES)
def test_without_the_server_a_command_says_so(
    words: list[str], missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    refused = orc(*words)
    assert refused.exit_code == 2
    assert refused.stderr.startswith(f"orc: `orc {' '.join(words)}` needs the server")
    assert missing in refused.stderr
    assert refused.stderr.count("\n") == 1


def test_a_bad_setting_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORC_PORT", "many")
    refused = orc("serve")
    assert refused.exit_code == 2
    assert refused.stderr.startswith("orc: the setting ORC_PORT is not valid: ")
    assert refused.stderr.count("\n") == 1


def test_an_unknown_store_is_refused_in_words() -> None:
    for words in (["db", "upgrade"], ["db", "current"]):
        refused = orc(*words, "--database-url", "mysql://somewhere/jobs")
        assert refused.exit_code == 1, words
        assert refused.stderr.startswith("orc: "), words
        assert refused.stderr.count("\n") == 1, words


def test_what_is_no_url_is_refused_with_the_form_of_one() -> None:
    refused = orc("db", "upgrade", "--database-url", "orc.db")
    assert refused.exit_code == 1
    assert "such as sqlite+aiosqlite:///orc.db" in refused.stderr
    assert refused.stderr.count("\n") == 1


def test_a_file_that_is_no_database_is_refused_in_words(tmp_path: Path, database_url: str) -> None:
    (tmp_path / "orc.db").write_bytes(b"not a database " * 100)
    for words in (["db", "upgrade"], ["db", "current"]):
        refused = orc(*words, "--database-url", database_url)
        assert refused.exit_code == 1, words
        assert "file is not a database" in refused.stderr, words
        assert "Traceback" not in refused.stderr, words


def test_db_current_makes_no_store(tmp_path: Path, database_url: str) -> None:
    shown = orc("db", "current", "--database-url", database_url)
    assert shown.output.startswith("The store is empty; ")
    assert list(tmp_path.iterdir()) == []


def test_a_store_of_a_newer_version_is_refused_in_words(tmp_path: Path, database_url: str) -> None:
    orc("db", "upgrade", "--database-url", database_url)
    with closing(sqlite3.connect(tmp_path / "orc.db")) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = 'future'")
    for words in (["db", "upgrade"], ["db", "current"]):
        refused = orc(*words, "--database-url", database_url)
        assert refused.exit_code == 1, words
        assert refused.stderr.startswith("orc: The store is at the schema future"), words
        assert refused.stderr.count("\n") == 1, words


def test_db_upgrade_keeps_its_hands_off_the_store_of_a_server(
    tmp_path: Path, database_url: str
) -> None:
    server = OwnerLock(tmp_path / "orc.db")
    server.acquire()
    refused = orc("db", "upgrade", "--database-url", database_url)
    assert refused.exit_code == 1
    assert refused.stderr.startswith("orc: Another server already owns ")
    assert refused.stderr.count("\n") == 1
    assert not (tmp_path / "orc.db").exists()
    assert orc("db", "current", "--database-url", database_url).exit_code == 0
    server.release()
    assert orc("db", "upgrade", "--database-url", database_url).exit_code == 0


def test_db_upgrade_takes_an_empty_store_to_the_newest_schema(database_url: str) -> None:
    before = orc("db", "current", "--database-url", database_url)
    first = orc("db", "upgrade", "--database-url", database_url)
    second = orc("db", "upgrade", "--database-url", database_url)
    after = orc("db", "current", "--database-url", database_url)
    assert [it.exit_code for it in (before, first, second, after)] == [0, 0, 0, 0]

    needed = re.fullmatch(r"The store is empty; this version needs (\w+)\.\n", before.output)
    assert needed
    head = needed[1]
    assert first.output == f"The schema went from empty to {head}, the newest.\n"
    assert second.output == f"The schema is at {head}, the newest.\n"
    assert after.output == f"The schema is at {head}; this version needs {head}.\n"


def test_the_store_of_the_environment_is_taken_and_the_flag_wins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, database_url: str
) -> None:
    other = tmp_path / "other.db"
    monkeypatch.setenv("ORC_DATABASE_URL", f"sqlite+aiosqlite:///{other}")
    assert orc("db", "upgrade", "--database-url", database_url).exit_code == 0
    assert not other.exists()
    assert orc("db", "upgrade").exit_code == 0
    assert other.exists()
