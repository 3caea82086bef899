"""The demo's task: what it counts."""

import ast
import sysconfig
from pathlib import Path

import pytest

from compute_orchestrator.cli import demo_tasks
from compute_orchestrator.cli.demo_tasks import FileCount, count_file, library_files, statements

SOURCE = """
import os, os.path as path
from collections.abc import Iterator
from . import near
from .far import away


class Outer:
    class Inner:
        async def one(self):
            import json

    def two(self):
        try:
            pass
        except* ValueError:
            def three(): ...
        else:
            import csv
        finally:
            def four(): ...
        match self:
            case 1:
                from json import loads
        return lambda: 5
"""


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(demo_tasks, "library", lambda: tmp_path)
    return tmp_path


def test_it_counts_statements_at_any_depth(library: Path) -> None:
    (library / "some.py").write_text(SOURCE)
    assert count_file("some.py") == FileCount(
        path="some.py",
        lines=25,
        functions=4,
        classes=2,
        imports=7,
        modules=("collections", "csv", "json", "os"),
    )


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        (b"print 'old'\n", "SyntaxError"),
        (b"# coding: no-such-code\n", "SyntaxError"),
        (b"x = '\xff'\n", "SyntaxError"),
        (b"x = '\0'\n", "Error: "),
    ],
)
def test_a_file_that_does_not_parse_is_data(library: Path, source: bytes, fault: str) -> None:
    (library / "bad.py").write_bytes(source)
    count = count_file("bad.py")
    assert (count.lines, count.functions, count.modules) == (1, 0, ())
    assert count.fault is not None
    assert fault in count.fault


def test_statements_are_all_that_a_full_walk_finds() -> None:
    for path in ("typing.py", "ast.py", "asyncio/tasks.py", "test/test_grammar.py"):
        file = Path(sysconfig.get_path("stdlib")) / path
        if file.exists():  # some systems leave the tests out
            tree = ast.parse(file.read_bytes())
            walked = [node for node in ast.walk(tree) if isinstance(node, ast.stmt)]
            found = [node for node in statements(tree) if isinstance(node, ast.stmt)]
            assert len(found) == len(walked) > 0
            assert set(found) == set(walked)


def test_the_library_is_listed_without_what_was_installed(library: Path) -> None:
    for name in ("b.py", "a/c.py", "a/d.txt", "site-packages/e.py", "dist-packages/f/g.py"):
        (library / name).parent.mkdir(parents=True, exist_ok=True)
        (library / name).touch()
    assert library_files() == ["a/c.py", "b.py"]
