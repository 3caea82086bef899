"""Promise 7: among jobs that could be claimed, none of lower priority is taken first."""

import asyncio
import random
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path

import httpx
import pytest

from tests.promises.calls import claim, create, ok, report
from tests.promises.records import Event, stored_jobs, trails

pytestmark = [pytest.mark.process, pytest.mark.asyncio(loop_scope="module")]

Place = tuple[int, int, int]
"""Where a job waits: minus its priority, its `run_at`, its id."""


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


async def test_whatever_is_created_and_brought_back_meanwhile_the_highest_goes_first(
    http: httpx.AsyncClient, database: Path, queue: str
) -> None:
    queues = [queue, f"{queue} other"]
    chance = random.Random(7)  # noqa: S311 - the same priorities in each run

    async def produce(count: int) -> None:
        for _ in range(count):
            await create(http, queue=chance.choice(queues), priority=chance.randint(-3, 3))

    async def consume(name: str) -> None:
        taken = 0
        while (lease := await claim(http, name, queues=queues, lease_seconds=60)) is not None:
            taken += 1
            match taken % 4:
                case 1:
                    answer = await report(http, lease, "failed", retry_in_seconds=0)
                case 2 if lease["release_count"] < 2:  # from the third on it would wait
                    answer = await report(http, lease, "queued")
                case _:
                    answer = await report(http, lease, "succeeded")
            ok(answer)

    await asyncio.gather(*(produce(10) for _ in range(10)))
    await asyncio.gather(
        *(produce(10) for _ in range(5)), *(consume(f"worker-{n}") for n in range(12))
    )
    await asyncio.gather(*(consume(f"late-{n}") for n in range(3)))

    jobs = {id_: job for id_, job in stored_jobs(database).items() if job["queue"] in queues}
    assert len(jobs) == 150
    assert {job["finished_at"] is None for job in jobs.values()} == {False}
    priorities = {job_id: job["priority"] for job_id, job in jobs.items()}
    found = trails(database)
    events = sorted(event for job_id in jobs for event in found[job_id])
    assert list(out_of_order(events, priorities)) == []


def out_of_order(events: Sequence[Event], priorities: dict[int, int]) -> Iterator[str]:
    """Claims that took another job than the first in line, as the trail has it, step by step.

    The claims of one transaction have one time, and take the first few together.
    """
    line: dict[int, Place] = {}
    run_at: dict[int, int] = {}
    for (is_claim, at), steps in groupby(events, lambda step: (step.action == "claim", step.at)):
        if is_claim:
            taken = {step.job_id for step in steps}
            first = sorted(line, key=lambda job_id: line[job_id])[: len(taken)]
            if taken != set(first):
                yield f"at {at} {taken} were taken, and {first} were first in line"
            for job_id in taken:
                line.pop(job_id, None)
            continue
        for step in steps:
            if step.to_status == "queued":
                if step.action != "release":  # which keeps its place
                    run_at[step.job_id] = step.at
                line[step.job_id] = (-priorities[step.job_id], run_at[step.job_id], step.job_id)
