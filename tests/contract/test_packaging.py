"""What is built and installed: the wheel's files, its commands, and the locked dependencies."""

import re
from importlib.metadata import entry_points

import pytest
from alembic.script import ScriptDirectory
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from compute_orchestrator.db.migrate import alembic_config, migrations_home
from tests.contract.tree import PYPROJECT, ROOT, commands

LOCK = (ROOT / "requirements.lock").read_text()
PINNED = {
    canonicalize_name(name): Version(version)
    for name, version in re.findall(r"^([\w.-]+)==([\w.!+]+)", LOCK, re.MULTILINE)
}
DEPENDENCIES = [
    Requirement(line)
    for line in [
        *PYPROJECT["project"]["dependencies"],
        *PYPROJECT["project"]["optional-dependencies"]["server"],
    ]
]


@pytest.mark.parametrize("dependency", DEPENDENCIES, ids=lambda dependency: dependency.name)
def test_the_lock_pins_a_dependency_within_its_bounds(dependency: Requirement) -> None:
    assert PINNED[canonicalize_name(dependency.name)] in dependency.specifier


@pytest.mark.parametrize("dependency", DEPENDENCIES, ids=lambda dependency: dependency.name)
def test_a_dependency_is_bounded_on_both_sides(dependency: Requirement) -> None:
    assert {each.operator for each in dependency.specifier} == {">=", "<"}


def test_the_lock_asks_for_hashes_and_names_no_place() -> None:
    pins = re.split(r"^(?=[\w.-]+==)", LOCK, flags=re.MULTILINE)[1:]
    assert len(pins) == len(PINNED)
    assert [pin.splitlines()[0] for pin in pins if "--hash=sha256:" not in pin] == []
    assert [line for line in LOCK.splitlines() if line.startswith("-") or "://" in line] == []
    assert re.findall(r"(?:^|[\s=])/\w+", LOCK) == []


def test_the_lock_tells_how_it_is_made_again() -> None:
    command = re.search(r"^#\s+(uv pip compile .+)$", LOCK, re.MULTILINE)
    assert command
    assert command[1] in set(commands(ROOT / "CONTRIBUTING.md"))


def test_the_wheel_carries_the_migrations_where_the_package_looks_for_them() -> None:
    included = PYPROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    assert included == {
        "migrations": "compute_orchestrator/migrations",
        "alembic.ini": "compute_orchestrator/alembic.ini",
    }
    assert [name for name in included if not (ROOT / name).exists()] == []


def test_in_the_tree_the_migrations_are_found_at_its_root() -> None:
    assert migrations_home() == ROOT
    assert ScriptDirectory.from_config(alembic_config()).get_heads() != []


def test_the_source_archive_lists_things_that_exist() -> None:
    listed = PYPROJECT["tool"]["hatch"]["build"]["targets"]["sdist"]["only-include"]
    assert [name for name in listed if not (ROOT / name).exists()] == []


def test_the_command_is_installed() -> None:
    (orc,) = entry_points(group="console_scripts", name="orc")
    assert callable(orc.load())


def test_the_changelog_tells_of_this_version() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text()
    newest = re.findall(r"^## \[([^\]]+)\]", changelog, re.MULTILINE)[0]
    assert newest == PYPROJECT["project"]["version"]
