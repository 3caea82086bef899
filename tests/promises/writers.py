"""A crowd that creates, claims and reports at the same time, and remembers what it was answered.

The server may be killed under it at any answer; a call that got none is forgotten.
"""

import asyncio
import signal
from collections.abc import Callable
from dataclasses import dataclass, field

import httpx

from tests.promises.calls import CREATED, NOTHING, Job, report
from tests.promises.servers import ServerProcess

LEASE_SECONDS = 1

# What the n-th report says; the queue drains, since only the last two bring a job back.
REPORTS = (
    ("succeeded", {"result": {"by": "the crowd"}}),
    ("succeeded", {"result": {"by": "the crowd"}}),
    ("failed", {"retryable": False, "error": {"type": "Broken", "message": "for good"}}),
    ("failed", {"retry_in_seconds": 0, "error": {"type": "Broken", "message": "for now"}}),
    ("queued", {"run_in_seconds": 0}),
)


@dataclass
class Ledger:
    """What was answered with 2xx, as it was answered."""

    created: dict[int, Job] = field(default_factory=dict[int, Job])
    leases: list[Job] = field(default_factory=list[Job])
    reports: list[tuple[Job, str, Job]] = field(default_factory=list[tuple[Job, str, Job]])
    """The lease, the status that was reported, and the job that was answered."""
    answers: int = 0
    on_answer: Callable[[int], None] = lambda _: None
    """Called with the number of answers, in the moment when one arrives."""

    def note(self) -> None:
        self.answers += 1
        self.on_answer(self.answers)


class Crowd:
    """`writers` tasks, each a producer and a worker in turn, until `done` is set."""

    def __init__(self, server: ServerProcess, http: httpx.AsyncClient, writers: int = 100) -> None:
        self.ledger = Ledger()
        self.done = False
        self._server = server
        self._http = http
        self._up = asyncio.Event()
        self._up.set()
        self._writers = writers

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for number in range(self._writers):
                group.create_task(self._write(f"writer-{number}"))

    async def killed_at(self, answers: int) -> None:
        """Kill -9 the server in the moment when so many more answers have come."""
        limit = self.ledger.answers + answers
        killed = asyncio.Event()

        def strike(count: int) -> None:
            if count == limit:
                self._up.clear()
                killed.set()
                self._server.send(signal.SIGKILL)

        self.ledger.on_answer = strike
        await killed.wait()
        await self._server.wait()

    async def restarted(self) -> None:
        await self._server.start()
        self._up.set()

    async def _write(self, name: str) -> None:
        round_number = 0
        while not self.done:
            await self._up.wait()
            round_number += 1
            try:
                await self._round(name, round_number)
            except httpx.TransportError:
                continue  # no answer, so nothing was promised

    async def _round(self, name: str, number: int) -> None:
        await self._create(f"{name}/{number}")
        lease = await self._claim(name)
        if lease is not None:
            await self._report(lease, number)

    async def _create(self, label: str) -> None:
        answer = await self._http.post("/jobs", json={"name": "work", "payload": label})
        if answer.status_code == CREATED:
            self.ledger.created[answer.json()["id"]] = answer.json()
            self.ledger.note()

    async def _claim(self, name: str) -> Job | None:
        wishes = {"worker_id": name, "lease_seconds": LEASE_SECONDS}
        answer = await self._http.post("/jobs/claim", json=wishes)
        if answer.is_error or answer.status_code == NOTHING:
            return None
        self.ledger.leases.append(answer.json())
        self.ledger.note()
        return answer.json()

    async def _report(self, lease: Job, number: int) -> None:
        status, more = REPORTS[number % len(REPORTS)]
        answer = await report(self._http, lease, status, **more)
        if not answer.is_error:
            self.ledger.reports.append((lease, status, answer.json()))
            self.ledger.note()
