"""Producers, workers and readers who call all at once, and what must be true of their answers and
of the store, whatever happened meanwhile.
"""

import asyncio
from asyncio import TaskGroup
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import httpx

from tests.databases import Database
from tests.promises.calls import OK, Job, claim, code, create
from tests.promises.records import (
    COUNTED,
    DISAGREEMENTS,
    TOLD,
    actions,
    faults_of_trails,
    trail_of,
)
from tests.promises.servers import real_seconds, until

UNAVAILABLE: Final = 503

ANSWERED_SECONDS: Final = 15.0
"""The longest that a call waits for its answer, whatever the database does."""
MOSTLY_SECONDS: Final = 10.0
"""What nine of ten refused calls take at most: so long a worker waits for an answer."""
SLACK_SECONDS: Final = 2.0
"""For a machine that is busy with other tests."""
LEASE_SECONDS: Final = 2.0
BEATS_SECONDS: Final = 0.3
PAUSE_SECONDS: Final = 0.02
CALLERS: Final = 4


class Answer(NamedTuple):
    kind: str
    seconds: float
    response: httpx.Response


@dataclass
class Load:
    """Producers, workers and readers at work, and a worker that holds on to its job. Each of its
    answers is kept.
    """

    http: httpx.AsyncClient
    lease: Job
    answers: list[Answer] = field(default_factory=list[Answer])
    reported: list[int] = field(default_factory=list[int])
    done: bool = False

    async def call(self, kind: str, method: str, path: str, body: Job | None = None) -> Answer:
        began = asyncio.get_running_loop().time()
        response = await self.http.request(method, path, json=body)
        answer = Answer(kind, asyncio.get_running_loop().time() - began, response)
        self.answers.append(answer)
        await real_seconds(PAUSE_SECONDS)
        return answer

    async def produce(self) -> None:
        while not self.done:
            await self.call("create", "POST", "/jobs", {"name": "work", "max_retries": 1000})

    async def work(self, name: str) -> None:
        wishes: Job = {"worker_id": name, "lease_seconds": LEASE_SECONDS, "wait_seconds": 1}
        while not self.done:
            answer = await self.call("claim", "POST", "/jobs/claim", wishes)
            if answer.response.status_code == OK:
                await self.succeed(answer.response.json())

    async def succeed(self, job: Job) -> None:
        """Asked again until it is known, as a worker does."""
        known = {"worker_id": job["locked_by"], "lease_token": job["lease_token"]}
        body = {"status": "succeeded", **known}
        while True:
            answer = await self.call("report", "PATCH", f"/jobs/{job['id']}/status", body)
            if taken(answer):
                self.reported.append(job["id"])
            if answer.response.status_code != UNAVAILABLE:
                return

    async def read(self) -> None:
        while not self.done:
            await self.call("list", "GET", "/jobs?limit=1")
            await self.call("get", "GET", f"/jobs/{self.lease['id']}")

    async def hold_on(self) -> None:
        path = f"/jobs/{self.lease['id']}/heartbeat"
        known = {"worker_id": self.lease["locked_by"], "lease_token": self.lease["lease_token"]}
        while not self.done:
            await self.call("heartbeat", "POST", path, known)
            await real_seconds(BEATS_SECONDS)

    def since(self, start: int) -> list[Answer]:
        return self.answers[start:]


ALWAYS_CALLED: Final = {"create", "list", "get", "heartbeat"}
KINDS: Final = ALWAYS_CALLED | {"claim", "report"}  # a worker that can't report claims no more


@asynccontextmanager
async def load_on(http: httpx.AsyncClient) -> AsyncGenerator[Load]:
    await create(http, queue="held")
    lease = await claim(http, "living", queues=["held"], lease_seconds=LEASE_SECONDS)
    assert lease is not None
    load = Load(http, lease)
    async with TaskGroup() as group:
        for number in range(CALLERS):
            group.create_task(load.produce())
            group.create_task(load.work(f"worker-{number}"))
            group.create_task(load.read())
        group.create_task(load.hold_on())
        try:
            await all_kinds(load, taken)
            yield load
        finally:
            load.done = True


def taken(answer: Answer) -> bool:
    return answer.response.is_success


def refused(answer: Answer) -> bool:
    return (
        answer.response.status_code == UNAVAILABLE and code(answer.response) == "store-unavailable"
    )


async def any_refused(load: Load) -> bool:
    return any(map(refused, load.answers))


async def all_kinds(load: Load, how: Callable[[Answer], bool], kinds: set[str] = KINDS) -> None:
    """Calls of each kind that begin now are answered in this way."""
    start = len(load.answers) + 4 * CALLERS  # those in flight are of before

    async def seen() -> bool:
        return kinds <= {answer.kind for answer in load.since(start) if how(answer)}

    await until(seen, 60)


def all_were_answered(load: Load) -> None:
    """In time, and who was refused may come again."""
    assert max(answer.seconds for answer in load.answers) < ANSWERED_SECONDS + SLACK_SECONDS
    refusals = [answer for answer in load.answers if not taken(answer)]
    seconds = sorted(answer.seconds for answer in refusals)
    assert seconds[len(seconds) * 9 // 10] < MOSTLY_SECONDS + SLACK_SECONDS
    for answer in refusals:
        assert answer.response.status_code == UNAVAILABLE, answer
        assert code(answer.response) in ("store-unavailable", "overloaded")
        assert int(answer.response.headers["Retry-After"]) >= 1


def nothing_is_half_done(database: Database, *loads: Load) -> None:
    """These are all calls that were ever made to it."""
    assert faults_of_trails(database) == []
    assert database.rows(DISAGREEMENTS) == []
    assert database.rows(COUNTED) == database.rows(TOLD)
    statuses = {row["id"]: row["status"] for row in database.rows("SELECT id, status FROM jobs")}
    creates = [it for load in loads for it in load.answers if it.kind == "create"]
    created = {answer.response.json()["id"] for answer in creates if taken(answer)}
    assert created <= statuses.keys()
    assert len(statuses) <= len(creates) + len(loads)
    for load in loads:
        assert {statuses[job_id] for job_id in load.reported} == {"succeeded"}
        assert actions(trail_of(database, load.lease["id"])) == ["create", "claim", "succeed"]
