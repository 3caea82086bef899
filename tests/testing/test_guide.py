"""docs/testing.md: its files make a project, and what it says is so. By the same project the plugin
is tested with every kind of test that it serves.
"""

import pytest

from tests.docs.pages import DOCS, blocks

pytest_plugins = ["pytester"]

INI = """
[pytest]
filterwarnings = error
asyncio_default_fixture_loop_scope = function
"""

BACKEND = """

@pytest.fixture
def anyio_backend():
    return "asyncio"
"""

SETTINGS = """
import pytest

@pytest.fixture
def orchestrator_settings():
    return {"lease_seconds": 20}

def test_the_server_has_the_tests_settings(blocking_orchestrator):
    blocking_orchestrator.submit("x")
    assert blocking_orchestrator.client.claim("w").held_seconds == 20
"""


@pytest.mark.slow
@pytest.mark.process
@pytest.mark.timeout(180)  # a whole run of pytest: long on a busy machine
def test_the_guides_project_passes_its_tests(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under pytest-asyncio as it is written, and under anyio's plugin."""
    files = {block.note("title") or "": block.text for block in blocks(DOCS / "testing.md")}
    asynchronous = {name: text for name, text in files.items() if "mark.asyncio" in text}
    for name, text in asynchronous.items():
        files[name.replace("test_", "test_anyio_")] = text.replace("mark.asyncio", "mark.anyio")
    files["conftest.py"] += BACKEND
    files["test_settings.py"] = SETTINGS
    pytester.makeini(INI)
    for name, text in files.items():
        assert name.endswith(".py"), "a block without a title is not run"
        pytester.path.joinpath(name).write_text(text)
    tests = sum(text.count("def test_") for text in files.values())
    assert asynchronous
    assert tests > len(asynchronous)
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # the others take a second
    plugins = ("asyncio", "anyio", "compute_orchestrator")
    done = pytester.runpytest_subprocess(*(f"-p{plugin}" for plugin in plugins))
    done.assert_outcomes(passed=tests)
