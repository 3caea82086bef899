"""`orc worker module:app`: what it finds, and what it says where it finds nothing."""

import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from compute_orchestrator.cli.app import app
from compute_orchestrator.cli.worker import find_worker
from compute_orchestrator.client import Worker

GOOD = """
from compute_orchestrator.client import Worker

app = Worker(
    "http://127.0.0.1:8000",
    worker_id="found",
    queues=["images"],
    concurrency=3,
    metrics_port=9100,
)
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


Run = dict[str, Any]


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[Run]:
    """How the worker stood each time when it was run."""
    runs: list[Run] = []

    def remember(app: Worker, **how: Any) -> None:
        changeable = {"url": app.url, "queues": app.queues, "concurrency": app.concurrency}
        runs.append(changeable | {"metrics_port": app.metrics_port} | how)

    monkeypatch.setattr(Worker, "run", remember)
    monkeypatch.delenv("ORC_URL", raising=False)
    return runs


def test_the_module_decides_where_no_flag_does(folder: Path, runs: list[Run]) -> None:
    (folder / "tasks_as_they_are.py").write_text(GOOD)
    assert orc_worker("tasks_as_they_are:app").exit_code == 0
    assert runs == [
        {
            "url": "http://127.0.0.1:8000",
            "queues": ("images",),
            "concurrency": 3,
            "metrics_port": 9100,
            "drain": False,
            "log_level": "info",
            "log_format": "text",
        }
    ]


def test_the_flags_win_over_the_module(
    folder: Path, runs: list[Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "tasks_with_flags.py").write_text(GOOD)
    flags = (
        "--url http://127.0.0.1:8001 --queue a --queue b --concurrency 7 --drain"
        " --log-level debug --log-format json"
    )
    assert orc_worker("tasks_with_flags:app", *flags.split()).exit_code == 0
    wanted = {
        "url": "http://127.0.0.1:8001",
        "queues": ("a", "b"),
        "concurrency": 7,
        "metrics_port": 9100,
        "drain": True,
        "log_level": "debug",
        "log_format": "json",
    }
    assert runs == [wanted]
    monkeypatch.setenv("ORC_URL", "")
    assert orc_worker("tasks_with_flags:app").exit_code == 0
    monkeypatch.setenv("ORC_URL", "http://127.0.0.1:8002")
    assert orc_worker("tasks_with_flags:app").exit_code == 0
    assert orc_worker("tasks_with_flags:app", "--url", "http://127.0.0.1:8003").exit_code == 0
    assert [run["url"][-4:] for run in runs] == ["8001", "8000", "8002", "8003"]


def test_a_flag_that_can_not_work_is_refused(folder: Path, runs: list[Run]) -> None:
    (folder / "tasks_with_bad_flags.py").write_text(GOOD)
    for flags, said in {
        "--log-level loud": "loud",
        "--concurrency 0": "concurrency",
        "--queue a/b": "--queue: a queue must not have a slash",
        "--url redis://user:secret@host": "--url is not of the form http://host:port",
    }.items():
        refused = orc_worker("tasks_with_bad_flags:app", *flags.split())
        assert refused.exit_code == 2, flags
        assert said in refused.stderr
        assert "secret" not in refused.stderr
    assert runs == []


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
