"""What a task is given of its job, and what it leaves for the next heartbeat."""

import logging
import threading
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass
from typing import Any

from pydantic_core import to_jsonable_python

from compute_orchestrator.client.calls import to_json
from compute_orchestrator.client.models import ClaimedJob, Json
from compute_orchestrator.client.outcomes import Cancelled

logger = logging.getLogger("compute_orchestrator.job")


@dataclass(frozen=True)
class Note:
    """What a heartbeat carries; None keeps what the server has."""

    progress: Json = None
    checkpoint: Json = None

    def __bool__(self) -> bool:
        return self.progress is not None or self.checkpoint is not None


class Notes:
    """A box for one note, filled by the task from any thread, emptied by the keeper."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._note = Note()
        self._on_urgent: Callable[[], None] | None = None

    def __bool__(self) -> bool:
        return bool(self._note)

    def on_urgent(self, wake: Callable[[], None]) -> None:
        self._on_urgent = wake

    def write(self, note: Note, *, urgent: bool = False) -> None:
        with self._lock:
            self._note = _laid_over(self._note, note)
        if urgent and self._on_urgent is not None:
            self._on_urgent()

    def take(self) -> Note:
        with self._lock:
            note, self._note = self._note, Note()
        return note

    def put_back(self, note: Note) -> None:
        """It was not sent; what was written since then stays above it."""
        with self._lock:
            self._note = _laid_over(note, self._note)


def _laid_over(below: Note, above: Note) -> Note:
    return Note(
        below.progress if above.progress is None else above.progress,
        below.checkpoint if above.checkpoint is None else above.checkpoint,
    )


class JobLog(logging.LoggerAdapter[logging.Logger]):
    """Lines that say which job and attempt they are of, in words and as fields."""

    def __init__(self, job: ClaimedJob) -> None:
        fields = {
            "job_id": job.id,
            "job_name": job.name,
            "attempt": job.attempt,
            "worker_id": job.locked_by,
        }
        super().__init__(logger, fields)
        name = job.name.replace("%", "_")  # it becomes part of a format
        self._prefix = f"job {job.id} ({name}, attempt {job.attempt}): "

    def process(
        self, msg: Any, kwargs: MutableMapping[str, Any]
    ) -> tuple[Any, MutableMapping[str, Any]]:
        kwargs["extra"] = {**(self.extra or {}), **(kwargs.get("extra") or {})}
        return f"{self._prefix}{msg}", kwargs


class Context:
    """The job as its task sees it. Everything here may be used from the loop and from threads."""

    def __init__(self, job: ClaimedJob, notes: Notes, log: JobLog, state: Any = None) -> None:
        self._job = job
        self._notes = notes
        self._checkpoint = job.checkpoint
        self.log = log
        self.state = state
        """What the worker's lifespan yielded; None in a task that runs in a process."""
        self.cancel_requested = False
        """True once the work counts no more: a cancel was asked for, or the lease is lost.

        An async task is cancelled by itself, and a process is ended; a plain function looks here
        now and then, or calls `check_cancelled()`.
        """
        self.was_left = False
        """True once the worker waits for it no more: it stops, and hands the job back."""

    @property
    def claimed(self) -> ClaimedJob:
        """The whole job as it was claimed: its queue, its tags, when it was made."""
        return self._job

    @property
    def id(self) -> int:
        return self._job.id

    @property
    def name(self) -> str:
        return self._job.name

    @property
    def attempt(self) -> int:
        """1 for the first run."""
        return self._job.attempt

    @property
    def payload(self) -> Json:
        """As it was sent; the task's arguments are the same, checked."""
        return self._job.payload

    @property
    def checkpoint(self) -> Json:
        """The last one that was saved, by this attempt or an earlier one; None if none was."""
        return self._checkpoint

    def check_cancelled(self) -> None:
        """Raise `Cancelled` once this work counts no more; for loops of plain functions."""
        if self.cancel_requested or self.was_left:
            raise Cancelled

    def progress(self, fraction: float, message: str | None = None) -> None:
        """Say how far it is; 1 is all. The next heartbeat carries it."""
        progress = {"fraction": fraction, "message": message}
        to_json(progress)  # what can't be sent must fail here, not in the heartbeat
        self.write(Note(progress=progress))

    def save(self, checkpoint: object) -> None:
        """Keep small JSON for the next attempt. A heartbeat carries it within about a second."""
        if checkpoint is None:
            raise ValueError("a checkpoint of None would keep the one before; save {} instead")
        plain = to_jsonable_python(checkpoint)  # a copy: the task may go on changing its own
        to_json(plain)
        self.write(Note(checkpoint=plain), urgent=True)

    def write(self, note: Note, *, urgent: bool = False) -> None:
        """What `progress()` and `save()` do, once it is checked."""
        if note.checkpoint is not None:
            self._checkpoint = note.checkpoint
        self._notes.write(note, urgent=urgent)
