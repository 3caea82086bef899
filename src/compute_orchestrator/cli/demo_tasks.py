"""The worker of the demo: one task, that reads one Python file and counts what stands in it."""

import ast
import os
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Final, TypedDict

QUEUE: Final = "demo"
TASK: Final = "count-python-file"
URL_VARIABLE: Final = "ORC_DEMO_URL"
NAME_VARIABLE: Final = "ORC_DEMO_WORKER"
LEASE_SECONDS: Final = 3


class FileCount(TypedDict):
    """The result of one job. Where the file does not parse, `fault` says why."""

    path: str
    lines: int
    functions: int
    classes: int
    imports: int
    modules: list[str]
    fault: str | None


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


def count_file(path: str) -> FileCount:
    """Count lines, functions, classes and imports. A file that does not parse is data, no failure."""
    source = (library() / path).read_bytes()
    lines = len(source.splitlines())
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError) as error:
        fault = f"{type(error).__name__}: {error}"
        return FileCount(
            path=path, lines=lines, functions=0, classes=0, imports=0, modules=[], fault=fault
        )
    functions = classes = imports = 0
    modules: set[str] = set()
    for node in ast.walk(tree):
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
        modules=sorted(modules),
        fault=None,
    )


def imported(node: ast.Import | ast.ImportFrom) -> Iterator[str]:
    """The top-level modules that the statement names; a relative import names none."""
    if isinstance(node, ast.Import):
        yield from (alias.name.partition(".")[0] for alias in node.names)
    elif node.level == 0 and node.module is not None:
        yield node.module.partition(".")[0]
