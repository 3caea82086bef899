"""What the repository says about itself: commands that exist, decisions that are listed."""

import re
import shlex
import shutil
from pathlib import Path

import pytest
import typer.main
import yaml

from compute_orchestrator.cli.app import app
from tests.contract.tree import BIN, PYPROJECT, ROOT, commands, repository_files, short

GUIDE = list(commands(ROOT / "CONTRIBUTING.md"))
GATE = (ROOT / ".ci" / "run").read_text()
DECISIONS = sorted((ROOT / "docs" / "adr").glob("[0-9]*.md"))

# Never whole, or this file would be the first to break its own rule.
REGISTRY_HOSTS = re.compile(
    "|".join(
        re.escape(".".join(host))
        for host in (("pypi", "org"), ("pythonhosted", "org"), ("npmjs", "org"), ("debian", "org"))
    )
)


def exists(command: str) -> bool:
    """Whether a command line's program, and the files and modules that it names, are there."""
    match shlex.split(command):
        case ["uv", "run", "orc", *words]:
            group = typer.main.get_group(app)
            return not words or words[0].startswith("-") or words[0] in group.commands
        case ["uv", "run", "python", "-m", module, *_]:
            return (ROOT / module / "__main__.py").is_file()
        case ["uv", "run", program, *words]:
            paths = [word for word in words if "/" in word]
            return bool(shutil.which(program, path=str(BIN))) and all(map(is_there, paths))
        case ["bash", script, *_]:
            return is_there(script)
        case ["docker", "compose", *_]:
            return is_there("docker-compose.yml")
        case ["git" | "cd" | "uv", *_]:
            return True
        case _:
            return False


def is_there(name: str) -> bool:
    return (ROOT / name.split("::")[0]).exists()


def test_no_file_names_a_package_registry() -> None:
    texts = {path: path.read_bytes().decode(errors="replace") for path in repository_files()}
    assert ROOT / "pyproject.toml" in texts
    assert [short(path) for path, text in texts.items() if REGISTRY_HOSTS.search(text)] == []


def test_no_lock_with_hosts_is_kept() -> None:
    names = {path.name for path in repository_files()}
    assert names & {"uv.lock", "pylock.toml"} == set()


def test_the_guide_for_contributors_names_commands_that_exist() -> None:
    assert "bash .ci/run" in GUIDE
    assert [command for command in GUIDE if not exists(command)] == []


def test_the_guide_for_contributors_names_markers_that_exist() -> None:
    markers = {line.split(":")[0] for line in PYPROJECT["tool"]["pytest"]["markers"]}
    asked = set(re.findall(r"pytest .*-m \"?(?:not )?(\w+)", "\n".join(GUIDE)))
    assert asked
    assert asked <= markers


def test_hooks_run_commands_that_exist() -> None:
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    hooks = [hook for repo in config["repos"] for hook in repo["hooks"]]
    entries = [hook["entry"] for hook in hooks if hook["language"] == "system"]
    assert entries
    assert [entry for entry in entries if not exists(entry)] == []


@pytest.mark.parametrize("tool", ["ruff check", "ruff format", "basedpyright", "lint-imports"])
def test_the_gate_checks_what_the_guide_says(tool: str) -> None:
    assert any(command.startswith(f"uv run {tool}") for command in GUIDE)
    assert re.search(rf"^uv run {tool}\b", GATE, re.MULTILINE)


def test_the_gate_runs_the_tests_with_the_command_that_everybody_runs() -> None:
    assert "uv run pytest" in GUIDE
    assert re.search(r"(^|\s)uv run pytest$", GATE, re.MULTILINE)


@pytest.mark.parametrize("page", DECISIONS, ids=short)
def test_a_decision_has_its_context_and_its_consequences(page: Path) -> None:
    text = page.read_text()
    number = int(page.name[:4])
    assert text.startswith(f"# {number}. ")
    headings = re.findall(r"^## (.+)$", text, re.MULTILINE)
    assert headings == ["Context", "Decision", "Consequences"]


def test_decisions_are_numbered_without_a_gap_and_listed() -> None:
    assert [int(page.name[:4]) for page in DECISIONS] == list(range(1, len(DECISIONS) + 1))
    index = (ROOT / "docs" / "adr" / "README.md").read_text()
    assert re.findall(r"\]\((\d{4}[\w.-]+\.md)\)", index) == [page.name for page in DECISIONS]
