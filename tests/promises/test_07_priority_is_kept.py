"""Promise 7: among jobs that could be claimed, none of lower priority is taken first."""

import asyncio
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import httpx
import pytest

from tests.promises.calls import Job, claim, create, ok, report

pytestmark = [pytest.mark.process, pytest.mark.asyncio(loop_scope="module")]


async def test_one_claimer_gets_the_jobs_in_their_order(
    http: httpx.AsyncClient, queue: str
) -> None:
    other, paused = f"{queue} other", f"{queue} paused"
    ok(await http.patch(f"/queues/{paused}", json={"paused": True}))
    wishes = [
        {"priority": 0, "queue": queue},
        {"priority": 5, "queue": other},
        {"priority": -100, "queue": queue},
        {"priority": 5, "queue": queue},
        {"priority": 5, "queue": queue, "run_at": "2020-01-01T00:00:00Z"},
        {"priority": 0, "queue": other, "run_at": "2020-01-01T00:00:00Z"},
        {"priority": 100, "queue": queue, "run_in_seconds": 3600},
        {"priority": 100, "queue": paused},
    ]
    ids = [(await create(http, **each))["id"] for each in wishes]
    got: list[int] = []
    while (lease := await claim(http, queues=[other, queue, paused])) is not None:
        got.append(lease["id"])
    assert got == [ids[4], ids[1], ids[3], ids[5], ids[0], ids[2]]


@dataclass
class Stay:
    """A job in the line: from when it was surely there, to when it perhaps was not any more."""

    job: Job
    since: float = field(default_factory=time.monotonic)
    """When its producer or worker was answered that it is queued."""
    until: float = float("inf")
    """When the claim was sent that got it."""
    taken: float = float("inf")
    """When that claim was answered."""

    @property
    def place(self) -> tuple[int, str, int]:
        return -self.job["priority"], self.job["run_at"], self.job["id"]


class Line:
    """The jobs that wait, as those see it who put them there and take them out."""

    def __init__(self, http: httpx.AsyncClient, queues: list[str]) -> None:
        self.stays: list[Stay] = []
        self._http = http
        self._queues = queues
        self._waiting: dict[int, Stay] = {}
        self._early: dict[int, tuple[float, float]] = {}
        self._chance = random.Random(7)  # noqa: S311 - the same priorities in each run

    async def produce(self, count: int) -> None:
        for _ in range(count):
            wishes = {
                "queue": self._chance.choice(self._queues),
                "priority": self._chance.randint(-3, 3),
            }
            self._enters(await create(self._http, **wishes))

    async def consume(self, name: str) -> None:
        taken = 0
        while (lease := await self._claim(name)) is not None:
            taken += 1
            match taken % 4:
                case 1:
                    answer = await report(self._http, lease, "failed", retry_in_seconds=0)
                case 2 if lease["release_count"] < 2:  # from the third on it would wait
                    answer = await report(self._http, lease, "queued")
                case _:
                    answer = await report(self._http, lease, "succeeded")
            if ok(answer)["status"] == "queued":
                self._enters(answer.json())

    async def _claim(self, name: str) -> Job | None:
        sent = time.monotonic()
        lease = await claim(self._http, name, queues=self._queues, lease_seconds=60)
        if lease is not None:
            self._leaves(lease["id"], sent, time.monotonic())
        return lease

    def _enters(self, job: Job) -> None:
        self._waiting[job["id"]] = Stay(job)
        self.stays.append(self._waiting[job["id"]])
        if job["id"] in self._early:
            self._leaves(job["id"], *self._early.pop(job["id"]))

    def _leaves(self, job_id: int, sent: float, answered: float) -> None:
        """It may have been claimed before its producer heard that it is there."""
        if job_id in self._waiting:
            stay = self._waiting.pop(job_id)
            stay.until, stay.taken = sent, answered
        else:
            self._early[job_id] = (sent, answered)


def overtaken(stays: Sequence[Stay]) -> Iterator[str]:
    """Jobs that surely waited through a claim that got another one behind them."""
    for taken in stays:
        for better in stays:
            if (
                better.place < taken.place
                and better.since < taken.until
                and taken.taken < better.until
            ):
                yield f"{taken} overtook {better}"


async def test_whatever_is_created_and_brought_back_meanwhile_the_highest_goes_first(
    http: httpx.AsyncClient, queue: str
) -> None:
    line = Line(http, [queue, f"{queue} other"])
    await asyncio.gather(*(line.produce(10) for _ in range(10)))
    await asyncio.gather(
        *(line.produce(10) for _ in range(5)), *(line.consume(f"worker-{n}") for n in range(12))
    )
    await asyncio.gather(*(line.consume(f"late-{n}") for n in range(3)))
    assert len({stay.job["id"] for stay in line.stays}) == 150
    assert [stay for stay in line.stays if stay.taken == float("inf")] == []
    assert len(line.stays) > 150
    assert list(overtaken(line.stays)) == []
