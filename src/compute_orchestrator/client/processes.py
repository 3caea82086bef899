"""Processes that run tasks: started when a job needs one, used again, killed to stop a job.

A busy function in one can hold up neither the event loop nor the heartbeats, and a kill stops it.
There are never more than jobs that run at once: a thread of the worker drives each.
"""

import atexit
import logging
import os
import signal
import threading
from contextlib import suppress
from multiprocessing import get_context, resource_tracker
from multiprocessing.process import BaseProcess

from compute_orchestrator.client.child import STOP_SIGNALS, End, Order, Said, serve
from compute_orchestrator.client.context import Context
from compute_orchestrator.client.outcomes import Cancelled, Ended, Raised, Stopped
from compute_orchestrator.client.tasks import Task

# For an idle one to end by itself, once its pipe is closed.
GOODBYE_SECONDS = 1.0

# One start at a time: a start also reaps what has ended, and two that reap lose an exit code.
_STARTING = threading.Lock()

logger = logging.getLogger("compute_orchestrator.job")


class ProcessDied(Exception):
    """The process that ran the task ended in the midst of it."""


class Child:
    """One process and the pipe to it."""

    def __init__(self) -> None:
        context = get_context("spawn")  # a fork would copy locks that other threads hold
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(theirs,), name="orc-task")
        _start(self._process)
        theirs.close()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None  # noqa: S101 - it is started above
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        with _STARTING:
            return self._process.is_alive()

    def run(self, order: Order, context: Context) -> Ended:
        """Blocks. EOFError or OSError where the process ends before the task."""
        self._pipe.send(order)
        while True:
            said = self._pipe.recv()
            if isinstance(said, End):
                return said.ended()
            if isinstance(said, Said):
                context.write(said.note, urgent=said.urgent)
            else:
                _log(said)

    def kill(self) -> None:
        """With all that its task has started."""
        if self._process.exitcode is None:
            with suppress(ProcessLookupError):  # too young to have a group of its own
                os.killpg(self.pid, signal.SIGKILL)
            self._process.kill()

    def say_goodbye(self) -> None:
        self._pipe.close()

    def bury(self) -> str:
        """Wait for its end, and say what it was. Kills one that does not end by itself."""
        self._pipe.close()
        self._process.join(GOODBYE_SECONDS)
        self.kill()
        self._process.join()
        return last_words(self._process.exitcode or 0)


class Processes:
    """Those of one worker."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle: list[Child] = []
        self._busy: set[Child] = set()
        self._is_watched = False

    def run_of(self, task: Task, context: Context) -> "ProcessRun":
        return ProcessRun(self, task, context)

    def take(self) -> Child:
        """One that waits for work, or a new one. Blocks while it is started."""
        with self._lock:
            if not self._is_watched:
                atexit.register(self.close)  # multiprocessing would wait for them for ever
                self._is_watched = True
            while self._idle:
                child = self._idle.pop()
                if child.is_alive:
                    break
                child.bury()
            else:
                child = Child()
            self._busy.add(child)
        return child

    def give_back(self, child: Child) -> None:
        with self._lock:
            self._busy.discard(child)
            self._idle.append(child)

    def drop(self, child: Child) -> str:
        """It is of no use any more. Says what its end was."""
        with self._lock:
            self._busy.discard(child)
        return child.bury()

    def close(self) -> None:
        """End all of them: those that are idle in peace."""
        with self._lock:
            idle, self._idle = self._idle, []
            busy = list(self._busy)
        for child in busy:
            child.kill()
        for child in idle:
            child.say_goodbye()
        for child in idle:
            child.bury()


class ProcessRun:
    """One run of a task in a process."""

    def __init__(self, processes: Processes, task: Task, context: Context) -> None:
        self._processes = processes
        self._context = context
        self._order = Order(
            task.name,
            task.function.__module__,
            task.function.__qualname__,
            context.claimed,
            context.log.getEffectiveLevel(),
        )
        self._lock = threading.Lock()
        self._child: Child | None = None
        self._is_killed = False

    def drive(self) -> Ended:
        """Run it and wait. For a thread of its own."""
        child = self._processes.take()
        with self._lock:
            if self._is_killed:
                self._processes.give_back(child)
                return Stopped(Cancelled())
            self._child = child
        try:
            ended = child.run(self._order, self._context)
        except (EOFError, OSError):
            return self._end_of_dead(child)
        except Exception as error:  # noqa: BLE001 - it said what can't be read here
            child.kill()
            self._processes.drop(child)
            return Raised(error)
        with self._lock:  # from here on a kill would hit another job
            self._child = None
            if not self._is_killed:
                self._processes.give_back(child)
                return ended
        return self._end_of_dead(child)

    def kill(self) -> None:
        """From any thread."""
        with self._lock:
            self._is_killed = True
            if self._child is not None:
                self._child.kill()

    def _end_of_dead(self, child: Child) -> Ended:
        with self._lock:
            self._child = None
        last_words = self._processes.drop(child)
        if self._is_killed:
            return Stopped(Cancelled())
        return Raised(ProcessDied(f"the process that ran the task {last_words}"))


def _start(process: BaseProcess) -> None:
    """With the signals blocked that stop a worker, until it has seen to them itself."""
    with _STARTING:
        resource_tracker.ensure_running()  # it would unblock them again
        before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
        try:
            process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def last_words(exit_code: int) -> str:
    """How a process with this exit code ended."""
    if exit_code >= 0:
        return f"ended by itself, with exit code {exit_code}"
    number = -exit_code
    name = signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"
    why = " (out of memory?)" if number == signal.SIGKILL else ""
    return f"was killed by {name}{why}"


def _log(record: logging.LogRecord) -> None:
    target = logging.getLogger(record.name)
    if target.isEnabledFor(record.levelno):
        target.handle(record)
