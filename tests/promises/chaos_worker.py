"""A worker or a producer of the chaos test: a process of its own, that may be killed at any moment.

    python -m tests.promises.chaos_worker work|produce NAME FOLDER SEED PORT...

It writes down each call (`history.py`). A call that gets no answer, or 503, is repeated at the next
server until it is answered; now and then it doesn't wait for the answer, as if that were lost.
SIGTERM ends it once all that it has begun is answered. The standard library alone: it starts in a
twentieth of a second.
"""

import json
import random
import signal
import sys
import threading
from http.client import HTTPConnection, HTTPException
from itertools import count, cycle
from pathlib import Path
from typing import Any, NamedTuple

from tests.promises.history import Ask, Recorder, cancel, claim, create, heartbeat, report

Job = dict[str, Any]

PATIENCE_SECONDS = 3
NEXT_TRY_SECONDS = 0.3
LOST_ON_PURPOSE = 0.05

LEASES_SECONDS = (1, 1.5, 2)
BEATS_PER_LEASE = 4

stopping = threading.Event()


class Answer(NamedTuple):
    status: int
    body: Any


def pause(seconds: float) -> None:
    """Work, or wait. Goes on by itself."""
    threading.Event().wait(seconds)


class Caller:
    """Sends a call to one server after the other until it is answered."""

    def __init__(self, recorder: Recorder, ports: list[int], chance: random.Random) -> None:
        self._recorder = recorder
        self._chance = chance
        self._servers = cycle(
            [HTTPConnection("127.0.0.1", port, timeout=PATIENCE_SECONDS) for port in ports]
        )
        self._server = next(self._servers)

    def ask(self, ask: Ask) -> Answer:
        while True:
            answer = self._try(ask)
            if answer is not None and answer.status != 503:
                return answer
            self._server = next(self._servers)
            pause(NEXT_TRY_SECONDS * self._chance.random())

    def _try(self, ask: Ask) -> Answer | None:
        server = self._server
        headers = {"Content-Type": "application/json"}
        if ask.key is not None:
            headers["Idempotency-Key"] = ask.key
        body = json.dumps(ask.body) if ask.body else None
        try:
            if server.sock is None:
                server.connect()
            number = self._recorder.sent(ask)
            server.request(ask.method, ask.path, body, headers)
            if self._chance.random() < LOST_ON_PURPOSE:
                server.close()
                return None
            response = server.getresponse()
            content = response.read()
        except (OSError, HTTPException):  # a torn answer is none
            server.close()
            return None
        answer = Answer(response.status, json.loads(content) if content else None)
        self._recorder.answered(number, *answer)
        return answer


class Worker:
    def __init__(self, name: str, caller: Caller, chance: random.Random) -> None:
        self._name = name
        self._ask = caller.ask
        self._chance = chance
        self._beats = count()
        self._fates = {  # and how often each of them
            self._quick: 40,
            self._slow: 20,
            self._late: 10,
            self._silent: 7,
            self._fail: 8,
            self._break: 3,
            self._release: 6,
            self._obey: 5,
            self._force: 3,
        }

    def work(self) -> None:
        for number in count():
            if stopping.is_set():
                return
            wait = self._chance.choice([0, 1])
            length = self._chance.choice(LEASES_SECONDS)
            asked = claim(self._name, f"{self._name}/{number}", length, wait_seconds=wait)
            answer = self._ask(asked)
            if answer.status == 200:
                (fate,) = self._chance.choices([*self._fates], [*self._fates.values()])
                fate(answer.body, length)
            elif not wait:
                pause(0.2)

    def _quick(self, job: Job, _length: float) -> None:
        pause(0.05 * self._chance.random())
        self._succeed(job)

    def _slow(self, job: Job, length: float) -> None:
        """Longer than its first lease; stops when it is told that it lost it."""
        for _ in range(BEATS_PER_LEASE + 2):
            pause(length / BEATS_PER_LEASE)
            if not self._beat(job):
                return
        self._succeed(job)

    def _late(self, job: Job, length: float) -> None:
        """No sign of life until its lease is about to end, or is another's already."""
        pause(length * (0.9 + 1.5 * self._chance.random()))
        if self._chance.random() < 0.5:
            self._beat(job)
        self._succeed(job)

    def _silent(self, _job: Job, _length: float) -> None:
        pass

    def _fail(self, job: Job, _length: float) -> None:
        error = {"type": "Broken", "message": "for now"}
        more = self._chance.choice([{"retry_in_seconds": 0}, {}])
        self._ask(report(job, "failed", error=error, **more))

    def _break(self, job: Job, _length: float) -> None:
        self._ask(report(job, "failed", retryable=False))

    def _release(self, job: Job, _length: float) -> None:
        more = self._chance.choice([{"run_in_seconds": 0.1}, {}])
        self._ask(report(job, "queued", **more))

    def _obey(self, job: Job, _length: float) -> None:
        """An operator cancels the job, its worker obeys; or does not see it in time."""
        self._ask(cancel(job["id"]))
        status = self._chance.choice(["cancelled", "cancelled", "queued", "succeeded"])
        if self._beat(job):
            self._ask(report(job, status))

    def _force(self, job: Job, _length: float) -> None:
        self._ask(cancel(job["id"], force=True))
        self._succeed(job)

    def _succeed(self, job: Job) -> None:
        self._ask(report(job, "succeeded", result=f"{self._name}, attempt {job['attempt']}"))

    def _beat(self, job: Job) -> bool:
        checkpoint = f"{self._name}, beat {next(self._beats)}"
        return self._ask(heartbeat(job, checkpoint)).status == 200


def produce(name: str, caller: Caller, chance: random.Random) -> None:
    for number in count():
        if stopping.is_set():
            return
        retry = {"base_seconds": 0.1, "max_seconds": 1}
        wishes = {"max_retries": chance.randrange(5), "priority": chance.randrange(3)}
        caller.ask(create(f"{name}/{number}", retry=retry, **wishes))
        pause(0.1 * chance.random())


def stop(_signal: int, _frame: object) -> None:
    stopping.set()


def main() -> None:
    role, name, folder, seed, *ports = sys.argv[1:]
    signal.signal(signal.SIGTERM, stop)
    chance = random.Random(f"{seed} {name}")  # noqa: S311 - a failure is to be seen again
    order = chance.sample([int(port) for port in ports], len(ports))
    caller = Caller(Recorder(Path(folder), name), order, chance)
    if role == "produce":
        produce(name, caller, chance)
    else:
        Worker(name, caller, chance).work()


if __name__ == "__main__":
    main()
