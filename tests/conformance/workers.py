"""The workers that are put to the test: planted ones, one of the SDK, and those of examples/."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from compute_orchestrator.main import create_app
from tests.conformance.planted import Fault

HERE: Final = Path(__file__).parent
EXAMPLES: Final = HERE.parents[1] / "examples"
BUILD_SECONDS: Final = 120


def planted(fault: Fault) -> list[str]:
    """`env` gives way to what it starts, so the signal reaches that."""
    return ["env", f"PLANTED_FAULT={fault}", sys.executable, str(HERE / "planted.py")]


SDK: Final = [sys.executable, str(HERE / "sdk_worker.py")]


@dataclass(frozen=True)
class Example:
    """`build` makes it ready in a folder of its own, and answers the command."""

    path: Path
    tools: Sequence[str]
    build: Callable[[Path], list[str]]

    @property
    def missing(self) -> list[str]:
        return [tool for tool in self.tools if shutil.which(tool) is None]


def build_go(folder: Path) -> list[str]:
    command = ["go", "build", "-o", str(folder / "worker"), "."]
    _run(command, EXAMPLES / "go")
    return [str(folder / "worker")]


def build_typescript(folder: Path) -> list[str]:
    """As its package.json says, from the document of this tree's own app."""
    place = folder / "typescript"
    made = shutil.ignore_patterns("node_modules", "dist", "protocol.d.ts")
    shutil.copytree(EXAMPLES / "typescript", place, ignore=made)
    document = place / "openapi.json"
    document.write_text(json.dumps(create_app().openapi()))
    types: str = json.loads((place / "package.json").read_text())["scripts"]["types"]
    _run(["npm", "install", "--no-package-lock", "--no-audit", "--no-fund"], place)
    _run(["npm", "exec", "--", *types.replace(DOCUMENT, "openapi.json").split()], place)
    _run(["npm", "run", "build"], place)
    return ["node", str(place / "dist" / "worker.js")]


DOCUMENT: Final = "${ORC_URL:-http://127.0.0.1:8000}/openapi.json"

BASH: Final = Example(
    EXAMPLES / "bash/worker.sh",
    ("bash", "curl", "jq"),
    lambda _: ["bash", str(EXAMPLES / "bash/worker.sh")],
)
NODE: Final = Example(
    EXAMPLES / "node/worker.mjs", ("node",), lambda _: ["node", str(EXAMPLES / "node/worker.mjs")]
)
GO: Final = Example(EXAMPLES / "go/worker.go", ("go",), build_go)
TYPESCRIPT: Final = Example(EXAMPLES / "typescript/worker.ts", ("node", "npm"), build_typescript)

ALL: Final = {"bash": BASH, "node": NODE, "go": GO, "typescript": TYPESCRIPT}


def _run(command: Sequence[str], folder: Path) -> None:
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=BUILD_SECONDS, check=False
    )
    assert done.returncode == 0, (command, done.stdout, done.stderr)
