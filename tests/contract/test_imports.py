"""Who may import, who may commit, who reads requests: what no import contract can say."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

from compute_orchestrator.main import create_app
from compute_orchestrator.routes.requests import ProtocolRoute
from tests.contract.tree import SOURCE, parsed, short, source_files

COMMITS = SOURCE / "services" / "transactions.py"


def enders(path: Path) -> set[str]:
    """The names by which a module ends transactions: calls, and SQL in so many words.

    A driver's connection that hands its own rollback on to its base decides nothing.
    """
    found: set[str] = set()
    for node in ast.walk(parsed(path)):
        match node:
            case ast.Attribute(value=ast.Call(func=ast.Name(id="super"))):
                pass
            case ast.Attribute(attr="commit" | "rollback" as name):
                found.add(name)
            case ast.Constant(value=str(text)) if text.strip().upper() in {"COMMIT", "ROLLBACK"}:
                found.add(text)
            case _:
                pass
    return found


def test_only_the_transactions_commit_and_roll_back() -> None:
    assert enders(COMMITS) == {"commit", "rollback"}
    others = {short(path): enders(path) for path in source_files() if path != COMMITS}
    assert {path: names for path, names in others.items() if names} == {}


@pytest.mark.parametrize(
    "module",
    ["compute_orchestrator", "compute_orchestrator.client", "compute_orchestrator.cli.app"],
)
def test_a_worker_loads_nothing_of_the_server(module: str) -> None:
    """`orc worker` runs where only the client's dependencies are installed."""
    program = f"import json, sys; import {module}; print(json.dumps(sorted(sys.modules)))"
    loaded = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    ).stdout
    packages = {name.split(".")[0] for name in json.loads(loaded)}
    assert "compute_orchestrator" in packages
    assert packages & {"fastapi", "starlette", "sqlalchemy", "alembic", "uvicorn"} == set()


def test_every_published_operation_reads_its_requests_strictly() -> None:
    app = create_app()
    published = {
        (path, method.upper()) for path, item in app.openapi()["paths"].items() for method in item
    }
    strict = {
        (route.path, method)
        for route in app.routes
        if isinstance(route, ProtocolRoute)
        for method in route.methods or ()
    }
    assert ("/jobs/claim", "POST") in published
    assert published - strict == set()


@pytest.mark.parametrize("path", source_files(), ids=short)
def test_a_module_opens_by_saying_what_it_is_for(path: Path) -> None:
    assert (ast.get_docstring(parsed(path)) or "").strip()


@pytest.mark.parametrize("path", source_files(), ids=short)
def test_a_module_can_be_read_at_one_sitting(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 500
