"""The worker of the demo: one task, that reads one Python file and counts what stands in it."""

import ast
import os
import sysconfig
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, cast

from compute_orchestrator.client import Worker

QUEUE: Final = "demo"
TASK: Final = "count-python-file"
NAME_VARIABLE: Final = "ORC_DEMO_WORKER"
LEASE_SECONDS: Final = 3
CONCURRENCY: Final = 4  # one file is parsed while the answer for another is on its way

# CPython 3.11 counts the depth of the tree that it builds for the whole interpreter: two threads
# that parse at once fail with "AST constructor recursion depth mismatch".
PARSER: Final = threading.Lock()

BLOCKS: Final = ("body", "orelse", "finalbody", "handlers", "cases")

app = Worker(
    "http://127.0.0.1:8000",  # the demo starts it with the --url of its own server
    queues=[QUEUE],
    concurrency=CONCURRENCY,
    lease_seconds=LEASE_SECONDS,
    worker_id=os.environ.get(NAME_VARIABLE),
)


@dataclass(frozen=True, slots=True)
class FileCount:
    """The result of one job. Where the file does not parse, `fault` says why."""

    path: str
    lines: int
    functions: int = 0
    classes: int = 0
    imports: int = 0
    modules: tuple[str, ...] = ()
    fault: str | None = None


def library() -> Path:
    """The standard library of the interpreter that runs this."""
    return Path(sysconfig.get_path("stdlib"))


def library_files() -> list[str]:
    """Its Python files without what was installed into it, as paths inside it."""
    root = library()
    found = (path.relative_to(root) for path in root.rglob("*.py"))
    return sorted(
        path.as_posix()
        for path in found
        if not {"site-packages", "dist-packages"}.intersection(path.parts)
    )


@app.task(TASK)
def count_file(path: str) -> FileCount:
    """Count what is in the file. One that does not parse is data, no failure."""
    source = (library() / path).read_bytes()
    lines = len(source.splitlines())
    try:
        with PARSER:
            tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError) as error:
        return FileCount(path=path, lines=lines, fault=f"{type(error).__name__}: {error}")
    functions = classes = imports = 0
    modules: set[str] = set()
    for node in statements(tree):
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                functions += 1
            case ast.ClassDef():
                classes += 1
            case ast.Import() | ast.ImportFrom():
                imports += 1
                modules.update(imported(node))
            case _:
                pass
    return FileCount(
        path=path,
        lines=lines,
        functions=functions,
        classes=classes,
        imports=imports,
        modules=tuple(sorted(modules)),
    )


def statements(tree: ast.Module) -> Iterator[ast.AST]:
    """All statements; a tenth of the nodes, and all that is counted stands among them."""
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        for block in BLOCKS:
            inside: object = getattr(node, block, None)
            if isinstance(inside, list):  # the body of a lambda or of an `if` expression is none
                waiting += cast("list[ast.AST]", inside)
        yield node


def imported(node: ast.Import | ast.ImportFrom) -> Iterator[str]:
    """The top-level modules that the statement names; a relative import names none."""
    if isinstance(node, ast.Import):
        yield from (alias.name.partition(".")[0] for alias in node.names)
    elif node.level == 0 and node.module is not None:
        yield node.module.partition(".")[0]
