"""What workers and producers asked and were answered, written down as it happens.

A caller has a file of its own, and each call two lines in it: one before it is sent, one when its
answer has come. A line is handed to the system in one write, so kill -9 of the caller loses none
that was written; at most the last is torn. A call without its second line got no answer: whether it
had an effect is not known.

Times are microseconds of the machine's wall clock. PostgreSQL on the same machine reads the same
clock for `clock_timestamp()`, so times of calls and times of the store can be compared: what was
sent after a commit was read is later than what that commit wrote. This holds as long as nobody sets
the clock back, and the checker looks whether somebody did.

Workers import this at each of their many starts: it imports little.
"""

import json
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple


def wall_clock() -> int:
    return time.time_ns() // 1000


class Ask(NamedTuple):
    """What is sent. `job_id` is the job that it is about, where that is known before."""

    kind: str
    method: str
    path: str
    body: Mapping[str, Any]
    job_id: int | None = None
    key: str | None = None
    """The Idempotency-Key of a create."""


class Call(NamedTuple):
    """What was sent, when, and what was answered, if anything was."""

    by: str
    ask: Ask
    sent: int
    answered: int | None = None
    status: int | None = None
    answer: Any = None

    @property
    def taken(self) -> bool:
        return self.status is not None and self.status < 300

    @property
    def refused(self) -> bool:
        """It had no effect, for certain: not so where no answer came, or 503."""
        return self.status is not None and 400 <= self.status < 500

    @property
    def job_id(self) -> int | None:
        """The job that it is about, or was answered."""
        if self.ask.job_id is None and self.taken and self.answer is not None:
            return self.answer["id"]
        return self.ask.job_id


def create(key: str, **wishes: Any) -> Ask:
    """The job carries its key as payload."""
    body = {"name": "work", "payload": key, **wishes}
    return Ask("create", "POST", "/jobs", body, key=key)


def claim(worker_id: str, request_id: str, lease_seconds: float, **wishes: Any) -> Ask:
    body = {"worker_id": worker_id, "request_id": request_id, "lease_seconds": lease_seconds}
    return Ask("claim", "POST", "/jobs/claim", {**body, **wishes})


def heartbeat(lease: Mapping[str, Any], checkpoint: str) -> Ask:
    body = {**_proof(lease), "checkpoint": checkpoint}
    return Ask("heartbeat", "POST", f"/jobs/{lease['id']}/heartbeat", body, lease["id"])


def report(lease: Mapping[str, Any], status: str, **more: Any) -> Ask:
    body = {**_proof(lease), "status": status, **more}
    return Ask("report", "PATCH", f"/jobs/{lease['id']}/status", body, lease["id"])


def cancel(job_id: int, *, force: bool = False) -> Ask:
    kind, query = ("force", "?force=true") if force else ("cancel", "")
    return Ask(kind, "POST", f"/jobs/{job_id}/cancel{query}", {}, job_id)


def _proof(lease: Mapping[str, Any]) -> dict[str, Any]:
    return {"worker_id": lease["locked_by"], "lease_token": lease["lease_token"]}


class Recorder:
    """Writes one caller's file."""

    def __init__(self, folder: Path, by: str, now: Callable[[], int] = wall_clock) -> None:
        path = folder / f"{by}.jsonl"
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o600)
        self._now = now
        self._calls = 0

    def sent(self, ask: Ask) -> int:
        """To be called before it is sent; its number."""
        self._calls += 1
        self._write({"call": self._calls, "at": self._now(), **ask._asdict()})
        return self._calls

    def answered(self, number: int, status: int, answer: Any) -> None:
        self._write({"call": number, "at": self._now(), "status": status, "answer": answer})

    def close(self) -> None:
        os.close(self._file)

    def _write(self, line: Mapping[str, Any]) -> None:
        os.write(self._file, json.dumps(line).encode() + b"\n")


def read_history(folder: Path) -> list[Call]:
    """The calls of all callers, each caller's in their order."""
    return [call for path in sorted(folder.glob("*.jsonl")) for call in _read(path)]


def _read(path: Path) -> list[Call]:
    calls: dict[int, Call] = {}
    *whole, _torn_or_empty = path.read_bytes().split(b"\n")
    for line in map(json.loads, whole):
        number, at = line.pop("call"), line.pop("at")
        if "kind" in line:
            calls[number] = Call(path.stem, Ask(**line), at)
        else:
            calls[number] = calls[number]._replace(answered=at, **line)
    return list(calls.values())
