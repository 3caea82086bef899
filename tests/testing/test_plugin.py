"""The pytest plugin: what every run of pytest has to load, and what it says where something is
missing, the server's packages or the team's worker.
"""

import os
import subprocess
import sys
from importlib.metadata import Distribution, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.contract.tree import SOURCE

pytest_plugins = ["pytester"]

TASKS = """
from compute_orchestrator.client import Worker

app = Worker("http://orchestrator.example")

@app.task("follow")
def follow(url: str) -> str:
    return f"followed {url}"
"""

WITHOUT_AN_APP = """
def test_it(blocking_worker):
    pass
"""

ALONE = """
import asyncio
from compute_orchestrator.testing import call_task
from tasks import follow

def test_a_task_alone():
    assert asyncio.run(call_task(follow, {"url": "/a"})).result == "followed /a"
"""

WITHOUT_A_SERVER = """
import pytest

def test_a_server(orchestrator):
    pass

def test_a_server_by_hand():
    with pytest.raises(ImportError, match="compute-orchestrator.server."):
        from compute_orchestrator.testing import Orchestrator
"""


LOADED = """
import sys
import pytest
before = set(sys.modules)
import compute_orchestrator.testing.plugin
print({name.partition(".")[0] for name in set(sys.modules) - before})
"""


def test_the_plugin_loads_nothing_but_itself() -> None:
    loaded = subprocess.run(
        [sys.executable, "-c", LOADED], check=True, capture_output=True, text=True
    )
    assert loaded.stdout.strip() == "{'compute_orchestrator'}"


def test_the_plugin_is_found_by_pytest(pytestconfig: pytest.Config) -> None:
    assert pytestconfig.pluginmanager.has_plugin("compute_orchestrator")


@pytest.mark.process
def test_without_the_server_it_says_what_is_missing(
    pytester: pytest.Pytester, client_only: dict[str, str]
) -> None:
    """Without an app too: pytest says what to do, and nothing else breaks."""
    pytester.makepyfile(
        tasks=TASKS, test_alone=ALONE, test_server=WITHOUT_A_SERVER, test_app=WITHOUT_AN_APP
    )
    done = subprocess.run(
        [sys.executable, "-S", "-m", "pytest", "-W", "error"],
        cwd=pytester.path,
        env=client_only,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "2 passed, 2 errors" in done.stdout, done.stdout + done.stderr
    assert "pip install 'compute-orchestrator[server]'" in done.stdout
    assert "does not know your worker: write a fixture `worker_app`" in done.stdout


@pytest.fixture
def client_only(tmp_path: Path) -> dict[str, str]:
    """The environment of a Python that has the client's packages and pytest, and no others: they
    are linked into a folder of its own.
    """
    folder = tmp_path / "site-packages"
    folder.mkdir()
    for needed in needed_by("compute-orchestrator", "pytest"):
        for file in needed.files or []:
            place = folder / file.parts[0]
            if file.parts[0] not in ("..", "compute_orchestrator") and not place.exists():
                place.symlink_to(Path(str(needed.locate_file(file.parts[0]))))
    assert not (folder / "fastapi").exists()
    return {**os.environ, "PYTHONPATH": f"{SOURCE.parent}{os.pathsep}{folder}"}


def needed_by(*names: str) -> list[Distribution]:
    """These distributions and all that they need, without extras."""
    found: dict[str, Distribution] = {}
    missing = list(names)
    while missing:
        name = canonicalize_name(missing.pop())
        if name not in found:
            found[name] = distribution(name)
            wanted = map(Requirement, found[name].requires or [])
            missing += [
                it.name for it in wanted if it.marker is None or it.marker.evaluate({"extra": ""})
            ]
    return list(found.values())
