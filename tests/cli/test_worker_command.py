"""`orc worker module:app`: what it finds, and what it says where it finds nothing."""

import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from compute_orchestrator.cli.app import app
from compute_orchestrator.cli.worker import find_worker
from compute_orchestrator.client import Worker

GOOD = """
from compute_orchestrator.client import Worker

app = Worker("http://127.0.0.1:8000", worker_id="found")
other = 7
"""


def orc_worker(target: str, *flags: str) -> Result:
    return CliRunner().invoke(app, ["worker", target, *flags], prog_name="orc")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's folder; what is imported from it is forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    known = dict(sys.modules)
    monkeypatch.setattr(sys, "modules", known)
    return tmp_path


def test_the_current_folder_is_looked_in(folder: Path) -> None:
    (folder / "tasks_of_a_user.py").write_text(GOOD)
    found = find_worker("tasks_of_a_user:app")
    assert isinstance(found, Worker)
    assert found.worker_id == "found"


def test_the_log_level_is_info_unless_the_flag_says_else(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    levels: list[str] = []

    def remember(_: Worker, *, log_level: str) -> None:
        levels.append(log_level)

    monkeypatch.setattr(Worker, "run", remember)
    (folder / "tasks_that_log.py").write_text(GOOD)
    assert orc_worker("tasks_that_log:app").exit_code == 0
    assert orc_worker("tasks_that_log:app", "--log-level", "debug").exit_code == 0
    assert orc_worker("tasks_that_log:app", "--log-level", "loud").exit_code == 2
    assert levels == ["info", "debug"]


@pytest.mark.parametrize("target", ["tasks", "tasks:", ":app", ""])
def test_the_form_is_explained(target: str) -> None:
    refused = orc_worker(target)
    assert refused.exit_code == 2
    assert refused.stderr == (f"orc: {target!r} is not of the form MODULE:APP, such as tasks:app\n")


@pytest.mark.parametrize("module", ["no_such_module", "no_such_package.tasks"])
def test_a_missing_module_is_said_plainly(module: str) -> None:
    refused = orc_worker(f"{module}:app")
    assert refused.exit_code == 2
    assert refused.stderr.startswith(f"orc: there is no module {module!r} in ")
    assert refused.stderr.count("\n") == 1


def test_a_missing_name_is_said_plainly(folder: Path) -> None:
    (folder / "tasks_without.py").write_text(GOOD)
    refused = orc_worker("tasks_without:application")
    assert refused.exit_code == 2
    assert refused.stderr == "orc: the module 'tasks_without' has no 'application'\n"


def test_what_is_no_worker_is_said_plainly(folder: Path) -> None:
    (folder / "tasks_and_more.py").write_text(GOOD)
    refused = orc_worker("tasks_and_more:other")
    assert refused.exit_code == 2
    assert refused.stderr == "orc: tasks_and_more:other is no Worker: it is of the type int\n"


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("import not_installed_here\n", "ModuleNotFoundError: No module named 'not_installed"),
        ("x = 1\n\n1 / 0\n", "ZeroDivisionError"),
        ("def broken(:\n", "SyntaxError"),
    ],
)
def test_a_fault_inside_the_module_is_shown_where_it_is(
    folder: Path, source: str, said: str
) -> None:
    (folder / "tasks_with_a_fault.py").write_text(source)
    refused = orc_worker("tasks_with_a_fault:app")
    assert refused.exit_code == 1
    assert said in refused.stderr
    assert "tasks_with_a_fault.py" in refused.stderr
    assert "importlib" not in refused.stderr
    assert "cli/worker.py" not in refused.stderr
    assert refused.stderr.endswith("orc: importing 'tasks_with_a_fault' failed, see above\n")
