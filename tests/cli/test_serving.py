"""What the server's process says: where its store is, and its log lines."""

import json
import logging
from collections.abc import Generator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from compute_orchestrator.cli.serving import shown_store
from compute_orchestrator.telemetry import configure_logging


@pytest.fixture
def root() -> Generator[logging.Logger]:
    """The root logger; afterwards it is pytest's again."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield root
    root.handlers[:] = handlers
    root.setLevel(level)


def test_a_file_is_shown_with_its_whole_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert shown_store("sqlite+aiosqlite:///orc.db") == str(tmp_path / "orc.db")


def test_a_password_is_not_shown() -> None:
    url = "postgresql+asyncpg://orc:secret@db:5432/jobs?passfile=secret"
    assert shown_store(url) == "postgresql+asyncpg://orc:***@db:5432/jobs"


@pytest.mark.usefixtures("root")
def test_times_in_json_are_in_utc_and_say_so(capsys: pytest.CaptureFixture[str]) -> None:
    before = datetime.now(UTC)
    configure_logging("info", "json")
    logging.getLogger("some").warning("a %s", "word")
    line = json.loads(capsys.readouterr().err)
    at = line.pop("at")
    assert at.endswith("Z")
    assert abs((datetime.fromisoformat(at) - before).total_seconds()) < 60
    assert line == {"levelname": "WARNING", "name": "some", "message": "a word"}


@pytest.mark.usefixtures("root")
def test_migrations_are_silent_unless_something_is_wrong(
    capsys: pytest.CaptureFixture[str],
) -> None:
    configure_logging("debug", "text")
    logging.getLogger("alembic.runtime.migration").info("Context impl SQLiteImpl.")
    logging.getLogger("alembic.runtime.migration").warning("odd")
    said = capsys.readouterr().err
    assert said.endswith("odd\n")
    assert said.count("\n") == 1
