"""A worker that does its duties, and others that leave out one each, as PLANTED_FAULT says.

On the standard library alone, so that a process of it is there at once.
"""

import json
import os
import random
import signal
import threading
import time
import urllib.error
import urllib.request
import uuid
from datetime import datetime
from enum import StrEnum
from types import FrameType
from typing import Any, Final

URL: Final = os.environ.get("ORC_URL", "")
WORKER_ID: Final = os.environ.get("ORC_WORKER_ID", "")
QUEUES: Final = os.environ.get("ORC_QUEUES", "").split(",")

POLL_SECONDS: Final = 2
CALL_SECONDS: Final = 5
REFUSED: Final = {"lease-lost", "invalid-transition", "job-not-found", "validation-error"}

Answer = dict[str, Any]
Reply = tuple[int, Answer, float]

FIELDS: Final = {
    *("id", "lease_token", "queue", "name", "payload", "priority", "status", "attempt"),
    *("retry_count", "max_retries", "release_count", "run_at", "lease_seconds", "timeout_seconds"),
    *("retry", "locked_by", "locked_at", "last_heartbeat_at", "lease_expires_at"),
    *("cancel_requested", "progress", "checkpoint", "result", "error", "tags"),
    *("created_at", "updated_at", "finished_at"),
}


def call(method: str, path: str, body: Answer, seconds: float = CALL_SECONDS) -> Reply:
    """Its status, its JSON, and its Retry-After; the status 0 where there was no answer."""
    request = urllib.request.Request(  # noqa: S310 - the server's own address
        URL + path, json.dumps(body).encode(), {"Content-Type": "application/json"}, method=method
    )
    try:
        with urllib.request.urlopen(request, timeout=seconds) as response:  # noqa: S310 - the same
            text = response.read()
            return response.status, json.loads(text) if text else {}, 0
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read()), float(error.headers.get("Retry-After") or 0)
    except OSError:
        return 0, {}, 0


class Fault(StrEnum):
    """What it does wrong; each stands at one place below."""

    NONE = "none"
    TAKES_FROM_ANY_QUEUE = "takes-from-any-queue"
    NEW_REQUEST_ID_AT_EACH_TRY = "new-request-id-at-each-try"
    NEVER_RESTS = "never-rests"
    FAILS_UNKNOWN_NAMES = "fails-unknown-names"
    NO_HEARTBEAT = "no-heartbeat"
    KEEPS_THE_FIRST_TOKEN = "keeps-the-first-token"  # noqa: S105 - no secret
    LOSES_THE_RESULT = "loses-the-result"
    DROPS_A_REPORT_WITHOUT_ANSWER = "drops-a-report-without-answer"
    REPEATS_A_REFUSED_REPORT = "repeats-a-refused-report"
    REPORTS_AFTER_A_LOST_LEASE = "reports-after-a-lost-lease"
    IGNORES_A_CANCEL = "ignores-a-cancel"
    IS_IMPATIENT = "is-impatient"
    IGNORES_SIGTERM = "ignores-sigterm"
    FORGETS_THE_CLAIM_ON_ITS_WAY = "forgets-the-claim-on-its-way"
    IS_STRICT = "is-strict"


FAULT: Final = Fault(os.environ.get("PLANTED_FAULT", "none"))


class Worker:
    """One job at a time."""

    def __init__(self) -> None:
        self.stopping = threading.Event()
        self.queues = list(QUEUES)
        self.poll_seconds = POLL_SECONDS
        self.first_token = ""
        if FAULT is Fault.TAKES_FROM_ANY_QUEUE:
            self.queues.append(f"{QUEUES[0]}-of-others")
        if FAULT is Fault.NEVER_RESTS:
            self.poll_seconds = 0

    def run(self) -> None:
        signal.signal(signal.SIGTERM, self.on_signal)
        while not self.stopping.is_set():
            job = self.claim()
            if FAULT is Fault.FORGETS_THE_CLAIM_ON_ITS_WAY and self.stopping.is_set():
                return
            if job is not None:
                Attempt(self, job).run()

    def on_signal(self, _number: int, _frame: FrameType | None) -> None:
        if FAULT is not Fault.IGNORES_SIGTERM:
            self.stopping.set()

    def claim(self) -> Answer | None:
        request_id = uuid.uuid4().hex
        for tries in range(1_000):
            if FAULT is Fault.NEW_REQUEST_ID_AT_EACH_TRY:
                request_id = uuid.uuid4().hex
            body: Answer = {
                "worker_id": WORKER_ID,
                "queues": self.queues,
                "request_id": request_id,
            }
            if self.poll_seconds and not self.stopping.is_set():
                body["wait_seconds"] = self.poll_seconds
            status, answer, retry_after = call("POST", "/jobs/claim", body)
            if status == 200:
                if FAULT is Fault.IS_STRICT and (unknown := answer.keys() - FIELDS):
                    raise SystemExit(f"unknown fields: {unknown}")
                return answer
            if status == 204:
                return None
            self.rest(tries, retry_after)
        return None

    def rest(self, tries: int, retry_after: float) -> None:
        wait = max(min(0.1 * 2**tries, 2) * random.uniform(0.5, 1), retry_after)  # noqa: S311 - jitter
        self.stopping.wait(0.05 if FAULT is Fault.IS_IMPATIENT else wait)

    def proof(self, job: Answer) -> Answer:
        self.first_token = self.first_token or job["lease_token"]
        keeps_first = FAULT is Fault.KEEPS_THE_FIRST_TOKEN
        token = self.first_token if keeps_first else job["lease_token"]
        return {"worker_id": WORKER_ID, "lease_token": token}


class Attempt:
    """One job, and the thread that keeps its lease."""

    def __init__(self, worker: Worker, job: Answer) -> None:
        self.worker = worker
        self.job = job
        self.told = threading.Event()  # to stop
        self.reason = ""
        self.answered = threading.Event()

    def run(self) -> None:
        keeper = threading.Thread(target=self.keep, daemon=True)
        keeper.start()
        report = self.work()
        if report is not None:
            self.deliver(report)
        self.answered.set()
        keeper.join()

    def keep(self) -> None:
        start = datetime.fromisoformat(self.job["last_heartbeat_at"] or self.job["locked_at"])
        end = datetime.fromisoformat(self.job["lease_expires_at"])
        third = (end - start).total_seconds() / 3
        while not self.answered.wait(third * 0.9):
            if FAULT is Fault.NO_HEARTBEAT:
                return
            _, answer, _ = call("POST", f"/jobs/{self.job['id']}/heartbeat", self.proof)
            if answer.get("code") == "lease-lost":
                if FAULT is not Fault.REPORTS_AFTER_A_LOST_LEASE:
                    self.stop("lost")
                return
            if answer.get("cancel_requested") and FAULT is not Fault.IGNORES_A_CANCEL:
                self.stop("cancelled")

    def stop(self, reason: str) -> None:
        self.reason = self.reason or reason
        self.told.set()

    @property
    def proof(self) -> Answer:
        return self.worker.proof(self.job)

    def work(self) -> Answer | None:
        name, payload = self.job["name"], self.job["payload"]
        match name:
            case "conformance.echo":
                result = "done" if FAULT is Fault.LOSES_THE_RESULT else payload["value"]
                return {"status": "succeeded", "result": result}
            case "conformance.fail":
                return {"status": "failed", "error": {"message": payload["message"]}}
            case "conformance.sleep":
                return self.sleep(payload["seconds"])
            case _ if FAULT is Fault.FAILS_UNKNOWN_NAMES:
                return {"status": "failed", "error": {"message": "unknown"}, "retryable": False}
            case _:
                return {"status": "queued", "run_in_seconds": 10}

    def sleep(self, seconds: float) -> Answer | None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0 and not self.told.wait(min(left, 0.1)):
            if self.worker.stopping.is_set():
                return {"status": "queued"}
        outcomes = {"": {"status": "succeeded"}, "cancelled": {"status": "cancelled"}, "lost": None}
        return outcomes[self.reason]

    def deliver(self, report: Answer) -> None:
        for tries in range(1_000):
            body = {**report, **self.proof}
            status, answer, retry_after = call("PATCH", f"/jobs/{self.job['id']}/status", body)
            if status == 200:
                return
            if status == 0 and FAULT is Fault.DROPS_A_REPORT_WITHOUT_ANSWER:
                return
            if answer.get("code") in REFUSED and not (
                FAULT is Fault.REPEATS_A_REFUSED_REPORT and tries < 3
            ):
                return
            self.answered.wait(max(0.1 * tries, retry_after))


if __name__ == "__main__":
    Worker().run()
