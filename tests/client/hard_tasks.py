"""Tasks for processes of their own, which find them here by name."""

import ctypes
import logging
import os
import subprocess
import sys
import time
from pathlib import Path

from compute_orchestrator.client import Cancelled, Context, Permanent, Retry, Snooze, Worker

app = Worker("http://127.0.0.1:1")


@app.task("square", process=True)
def square(number: int) -> dict[str, int]:
    return {"square": number * number, "pid": os.getpid()}


@app.task("telling", process=True)
def telling(job: Context) -> list[object]:
    job.progress(0.5, "half")
    job.save({"page": 3})
    job.log.info("page %d", 3)
    logging.getLogger("own").warning("mine", extra={"page": 3})
    logging.getLogger("own").debug("too fine")
    return [job.id, job.attempt, job.payload, job.checkpoint, job.state]


@app.task("raising", process=True)
def raising(what: str) -> None:
    class Unpicklable(Exception):
        pass

    raise {
        "retry": Retry("rate limited", in_seconds=30),
        "permanent": Permanent("no such user"),
        "snooze": Snooze(600),
        "cancelled": Cancelled(),
        "own": Unpicklable("half done"),
        "exit": SystemExit(3),
    }[what]


@app.task("unusable", process=True)
def unusable() -> object:
    return object()


@app.task("dying", process=True)
def dying(how: str) -> None:
    if how == "segfault":
        ctypes.string_at(0)
    os._exit(3)


@app.task("endless", process=True)
def endless(notes: str) -> None:
    """Says who runs, a program that it started too, and works until it is killed."""
    program = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
    Path(notes).write_text(f"{os.getpid()} {program.pid}\n")
    while True:
        pass


def busy(seconds: float) -> float:
    """Holds the interpreter for so long."""
    end = time.monotonic() + seconds
    count = 0
    while time.monotonic() < end:
        count += 1
    return count / seconds
