"""Workers that live and die in the test: each claims, beats while it works, and reports; some fall
silent in the middle. What each was told about its leases is kept, to be compared with the trail.
"""

import asyncio
import random
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import groupby, pairwise
from typing import Any, Final

import httpx

from tests.databases import Database
from tests.promises.calls import Job, beat, claim, create, ok, report
from tests.promises.servers import real_seconds, until

BEATS_PER_LEASE: Final = 4
FATES: Final = ("quick", "slow", "silent", "fail", "release")


@dataclass
class Held:
    """A lease as its holder knows it. Times are the server's, as it wrote them."""

    job_id: int
    attempt: int
    token: str
    locked_at: str
    until: str
    """The latest expiry that was answered, or the end that a report was answered."""


@dataclass
class Team:
    """`leases` is what all its workers were told; `refused` how often the server knew better."""

    http: httpx.AsyncClient
    queue: str
    lease_seconds: float
    seed: int = 1
    done: bool = False
    leases: list[Held] = field(default_factory=list[Held])
    refused: int = 0

    async def work(self, name: str) -> None:
        """One worker, until the team is done. Its fate is drawn anew for each job."""
        chance = random.Random(f"{self.seed} {name}")  # noqa: S311 - the same fates in each run
        while not self.done:
            wishes = {"queues": [self.queue], "lease_seconds": self.lease_seconds}
            job = await claim(self.http, name, **wishes)
            if job is None:
                await real_seconds(self.lease_seconds / 10)
                continue
            held = Held(
                job["id"],
                job["attempt"],
                job["lease_token"],
                job["locked_at"],
                job["lease_expires_at"],
            )
            self.leases.append(held)
            await self._run(job, held, chance.choice(FATES))

    async def _run(self, job: Job, held: Held, fate: str) -> None:
        if fate == "slow":  # longer than the first lease
            for _ in range(BEATS_PER_LEASE + 2):
                await real_seconds(self.lease_seconds / BEATS_PER_LEASE)
                await self._beat(job, held)
        match fate:
            case "silent":
                return
            case "fail":
                answer = await report(self.http, job, "failed", retry_in_seconds=0)
            case "release":
                answer = await report(self.http, job, "queued", run_in_seconds=0)
            case _:
                answer = await report(self.http, job, "succeeded")
        if answer.is_error:
            self.refused += 1
        else:
            held.until = answer.json()["updated_at"]

    async def _beat(self, job: Job, held: Held) -> None:
        answer = await beat(self.http, job)
        if answer.is_error:
            self.refused += 1
        else:
            held.until = answer.json()["lease_expires_at"]


def overlaps(leases: Iterable[Held]) -> list[str]:
    """Leases of one job that began before the one before was over, as their holders were told."""
    ordered = sorted(leases, key=lambda held: (held.job_id, held.attempt))
    return [
        f"{later} began before the end of {earlier}"
        for _, of_job in groupby(ordered, lambda held: held.job_id)
        for earlier, later in pairwise(of_job)
        if later.locked_at < earlier.until
    ]


async def hire(team: Team, size: int) -> None:
    """Let so many workers work until the team is done."""
    async with asyncio.TaskGroup() as group:
        for number in range(size):
            group.create_task(team.work(f"worker-{number}"))


async def expired_leases(
    http: httpx.AsyncClient, database: Database, queue: str, size: int, **wishes: Any
) -> list[Job]:
    """Leases that ran out while the reaper watched, and that nobody took yet."""
    await asyncio.gather(*(create(http, queue=queue, **wishes) for _ in range(size)))
    claims = (claim(http, f"{queue}-{n}", queues=[queue], lease_seconds=1) for n in range(size))
    leases = [job for job in await asyncio.gather(*claims) if job is not None]
    assert len(leases) == size
    ok(await http.post("/jobs/reap"))  # from the first time on it watches
    expiry = database.value("SELECT max(lease_expires_at) FROM jobs WHERE queue = ?", queue)
    watched = database.value("SELECT since FROM watch") + 1_000_000

    async def over() -> bool:
        return time.time_ns() // 1000 > max(expiry, watched)

    await until(over)
    return leases
