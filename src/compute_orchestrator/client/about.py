"""What a worker says of itself: where it runs, and what code it has. `GET /workers` shows it."""

import hashlib
import inspect
import os
import socket
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version

from compute_orchestrator.client.tasks import Task

PACKAGE = "compute-orchestrator"
CODE_LENGTH = 12


def about(code: str) -> dict[str, object]:
    return {"host": socket.gethostname(), "pid": os.getpid(), "sdk": _sdk(), "code": code}


def code_of(tasks: Iterable[Task]) -> str:
    """A short hash that changes with the source of a task. What a task calls does not count."""
    digest = hashlib.sha256()
    for task in sorted(tasks, key=lambda it: it.name):
        digest.update(f"{task.name}\n{_source(task)}\n".encode())
    return digest.hexdigest()[:CODE_LENGTH]


def _source(task: Task) -> str:
    try:
        return inspect.getsource(task.body)
    except (OSError, TypeError):  # typed in at a prompt, or written in C
        code = getattr(task.body, "__code__", None)
        return task.body.__qualname__ if code is None else f"{code.co_code}{code.co_consts}"


def _sdk() -> str:
    try:
        return f"{PACKAGE}/{version(PACKAGE)}"
    except PackageNotFoundError:  # run from its source, not installed
        return PACKAGE
