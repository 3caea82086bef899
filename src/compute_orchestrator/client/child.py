"""Inside a process that runs tasks: take an order, call the function, say what came of it.

Its parent alone ends it: by closing the pipe, or by a kill. The signals that stop a worker come to
all processes of a terminal or a service, and are not for it. When the parent is gone, by kill -9
too, it ends itself.
"""

import logging
import os
import signal
import threading
from copy import copy
from dataclasses import dataclass
from functools import cache, partial
from importlib import import_module
from multiprocessing import parent_process
from multiprocessing.connection import Connection, wait
from typing import Any, Literal

from compute_orchestrator.client.context import Context, JobLog, Note, Notes
from compute_orchestrator.client.functions import TaskFunction
from compute_orchestrator.client.models import ClaimedJob, Json
from compute_orchestrator.client.outcomes import (
    Cancelled,
    Ended,
    Permanent,
    Raised,
    RaisedInProcess,
    Retry,
    Returned,
    Snooze,
    Stopped,
    describe,
    end_of_plain,
    in_short,
)
from compute_orchestrator.client.tasks import Task

# They would stop the worker; see above.
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass(frozen=True)
class Order:
    """One run: which function, for which job."""

    task: str
    module: str
    qualname: str
    job: ClaimedJob
    log_level: int


@dataclass(frozen=True)
class Said:
    """What the task left for the next heartbeat."""

    note: Note
    urgent: bool


@dataclass(frozen=True)
class End:
    """How the run ended, in parts that another process can take: its errors may not travel."""

    kind: Literal["returned", "failed", "permanent", "retry", "snooze", "stopped"]
    result: Any = None
    seconds: float | None = None
    words: str = ""
    told: dict[str, object] | None = None

    @classmethod
    def of(cls, ended: Ended) -> "End":
        match ended:
            case Returned(result):
                return cls("returned", result)
            case Stopped():
                return cls("stopped")
            case Raised(Snooze() as snooze):
                return cls("snooze", seconds=snooze.seconds)
            case Raised(Retry() as error):
                return cls("retry", None, error.in_seconds, in_short(error), describe(error))
            case Raised(Permanent() as error):
                return cls("permanent", None, None, in_short(error), describe(error))
            case Raised(error):
                return cls("failed", None, None, in_short(error), describe(error))

    def ended(self) -> Ended:
        match self.kind:
            case "returned":
                return Returned(self.result)
            case "stopped":
                return Stopped(Cancelled())
            case "snooze":
                return Raised(Snooze(self.seconds or 0))
            case "retry":
                return Raised(RetryInProcess(self.words, in_seconds=self.seconds), self.told)
            case "permanent":
                return Raised(PermanentInProcess(self.words), self.told)
            case "failed":
                return Raised(RaisedInProcess(self.words), self.told)


class RetryInProcess(RaisedInProcess, Retry):
    """It chose when to run again."""


class PermanentInProcess(RaisedInProcess, Permanent):
    """It failed for good."""


class Mouth:
    """The pipe to the parent; any thread of the task may speak."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._lock = threading.Lock()

    def say(self, what: "Said | logging.LogRecord | End") -> None:
        with self._lock:
            self._connection.send(what)


class SentNotes(Notes):
    """Go to the parent as they are written; its heartbeats carry them."""

    def __init__(self, mouth: Mouth) -> None:
        super().__init__()
        self._mouth = mouth
        self.is_over = False

    def write(self, note: Note, *, urgent: bool = False) -> None:
        if not self.is_over:  # else it would count for the next job here
            self._mouth.say(Said(note, urgent))


class SentLog(logging.Handler):
    """Log lines go to the parent, which writes them where it writes its own."""

    def __init__(self, mouth: Mouth) -> None:
        super().__init__()
        self._mouth = mouth

    def emit(self, record: logging.LogRecord) -> None:
        try:
            sent = copy(record)
            sent.msg = self.format(record)  # with the traceback in it
            sent.args = sent.exc_info = sent.exc_text = sent.stack_info = None
            self._mouth.say(sent)
        except Exception:  # noqa: BLE001 - a line that can't be sent must not fail the task
            self.handleError(record)


def serve(connection: Connection) -> None:
    """Run orders until the parent closes the pipe."""
    _take_no_stop_signals()
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    mouth = Mouth(connection)
    log = logging.getLogger()
    has_own_log = log.hasHandlers()  # the program has set it up itself
    if not has_own_log:
        log.addHandler(SentLog(mouth))
    while True:
        try:
            order: Order = connection.recv()
        except EOFError:
            return
        if not has_own_log:
            log.setLevel(order.log_level)
        mouth.say(End.of(run(order, mouth)))


def run(order: Order, mouth: Mouth) -> Ended:
    notes = SentNotes(mouth)
    context = Context(order.job, notes, JobLog(order.job))
    ended = end_of_plain(partial(_call, order, context), _as_it_is)
    notes.is_over = True
    return ended


def _call(order: Order, context: Context) -> Json:
    task = find(order.task, order.module, order.qualname)
    # Bound here once more, and not sent: an argument may be of a type that does not travel.
    return task.plain(task.function(**task.bind(order.job.payload, context)))


def _as_it_is(result: Json) -> Json:
    return result


@cache
def find(name: str, module: str, qualname: str) -> Task:
    """The task of a function that stands at the top of its module, or in a class there."""
    found: Any = import_module(module)
    try:
        for part in qualname.split("."):
            found = getattr(found, part)
    except AttributeError:
        raise LookupError(
            f"a process finds no {qualname!r} in the module {module!r};"
            " a task that runs in a process must stand in a file, under its own name"
        ) from None
    return found.task if isinstance(found, TaskFunction) else Task.of(name, found)


def _take_no_stop_signals() -> None:
    os.setsid()  # with all that its tasks start it is one group, which one kill ends
    for number in STOP_SIGNALS:
        # No SIG_IGN: the programs that a task starts would inherit it.
        signal.signal(number, _ignore)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)  # the parent started it blocked


def _ignore(*_: object) -> None:
    """Python's own answer to a signal: none."""


def _end_with_the_parent() -> None:
    parent = parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os.killpg(os.getpid(), signal.SIGKILL)
