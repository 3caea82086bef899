"""A short history of all that can happen to a job: played in this process, on a clock that the test
moves, and recorded as a long one is. And a copy of it, to be falsified.
"""

import json
from pathlib import Path
from typing import Any

import httpx

from tests.conftest import World
from tests.promises.evidence import Evidence, Outage, StoredJob, gathered
from tests.promises.history import (
    Ask,
    Call,
    Recorder,
    cancel,
    claim,
    create,
    heartbeat,
    report,
)
from tests.promises.history_checker import faults
from tests.promises.records import Event

Job = dict[str, Any]

LEASE_SECONDS = 10
A_CALL_SECONDS = 0.001
"""Between two things that happen: no two have the same time."""


class Play:
    """Callers of a world. Each job has a queue of its own, named as its key."""

    def __init__(self, world: World, folder: Path) -> None:
        self._world = world
        self._folder = folder
        self._recorders: dict[str, Recorder] = {}
        self._claims = 0

    async def ask(self, by: str, ask: Ask) -> Any:
        """The body of the answer."""
        if by not in self._recorders:
            self._recorders[by] = Recorder(self._folder, by, self._world.clock.now)
        self._world.clock.move(A_CALL_SECONDS)
        number = self._recorders[by].sent(ask)
        self._world.clock.move(A_CALL_SECONDS)
        response = await self._send(ask)
        answer = response.json() if response.content else None
        self._world.clock.move(A_CALL_SECONDS)
        self._recorders[by].answered(number, response.status_code, answer)
        return answer

    async def lost_answer(self, by: str, ask: Ask) -> None:
        """It has its effect, and its caller does not hear of it."""
        self._recorders[by].sent(ask)
        self._world.clock.move(A_CALL_SECONDS)
        await self._send(ask)

    async def _send(self, ask: Ask) -> httpx.Response:
        headers = {} if ask.key is None else {"Idempotency-Key": ask.key}
        body = ask.body or None
        return await self._world.http.request(ask.method, ask.path, json=body, headers=headers)

    async def created(self, key: str, **wishes: Any) -> Job:
        return await self.ask("producer", create(key, queue=key, **wishes))

    async def claimed(self, by: str, key: str) -> Job:
        self._claims += 1
        asked = claim(by, f"{by}/{self._claims}", LEASE_SECONDS, queues=[key])
        return await self.ask(by, asked)

    async def lease(self, by: str, key: str, **wishes: Any) -> Job:
        """A new job under its first lease."""
        await self.created(key, **wishes)
        return await self.claimed(by, key)

    async def leases_pass(self, number: float) -> None:
        """The time of so many leases."""
        await self._world.pass_time(number * LEASE_SECONDS)

    def forget(self, job_id: int) -> None:
        """The store loses a job."""
        with self._world.database.connected() as ask:
            ask("DELETE FROM job_events WHERE job_id = ?", job_id)
            ask("DELETE FROM jobs WHERE id = ?", job_id)

    def end(self) -> Evidence:
        for recorder in self._recorders.values():
            recorder.close()
        return gathered(self._folder, self._world.database)


async def play_all(play: Play) -> Evidence:
    """Every way through the state machine that has no operator's retry, and no fault in it."""
    done = await play.lease("anna", "done")
    await play.ask("anna", heartbeat(done, "half"))
    await play.lost_answer("anna", report(done, "succeeded", result="well"))
    await play.ask("anna", report(done, "succeeded", result="well"))
    await play.created("done")
    await replaced_holder(play)
    await living_holder(play)
    failing = await play.lease("anna", "failing", max_retries=1)
    await play.ask("anna", report(failing, "failed", retry_in_seconds=0))
    failing = await play.claimed("anna", "failing")
    await play.ask("anna", report(failing, "queued"))
    failing = await play.claimed("bert", "failing")
    await play.ask("bert", report(failing, "failed"))
    broken = await play.lease("bert", "broken")
    await play.ask("bert", report(broken, "failed", retryable=False))
    stopped = await play.lease("anna", "stopped")
    await play.ask("producer", cancel(stopped["id"]))
    await play.ask("anna", report(stopped, "cancelled"))
    await play.ask("producer", cancel(done["id"]))
    forced = await play.lease("anna", "forced")
    await play.ask("producer", cancel(forced["id"], force=True))
    await play.ask("anna", report(forced, "succeeded"))
    waiting = await play.created("waiting")
    await play.ask("producer", cancel(waiting["id"]))
    return play.end()


async def replaced_holder(play: Play) -> None:
    """Anna falls silent and loses her lease to Bert. Then she beats and reports all the same."""
    old = await play.lease("anna", "replaced")
    await play.ask("anna", heartbeat(old, "anna's"))
    await play.leases_pass(4)
    new = await play.claimed("bert", "replaced")
    await play.ask("bert", heartbeat(new, "bert's"))
    await play.ask("anna", heartbeat(old, "anna's, too late"))
    await play.ask("anna", report(old, "succeeded", result="anna's, too late"))
    await play.ask("bert", report(new, "succeeded", result="bert's"))


async def living_holder(play: Play) -> None:
    """Anna works for longer than a lease, and beats."""
    lease = await play.lease("anna", "alive")
    for _ in range(6):
        await play.leases_pass(0.5)
        await play.ask("anna", heartbeat(lease, "still at work"))
    await play.ask("anna", report(lease, "succeeded"))


class Edited:
    """A copy of a history, to be falsified."""

    def __init__(self, good: Evidence) -> None:
        self.calls = list(good.calls)
        self.jobs = list(good.jobs.values())
        self.events = [event for trail in good.trails.values() for event in trail]
        self.outages: list[Outage] = []

    def faults(self) -> list[str]:
        return faults(Evidence(self.calls, self.jobs, self.events, self.outages))

    def job(self, key: str) -> StoredJob:
        return next(job for job in self.jobs if job.payload and json.loads(job.payload) == key)

    def event(self, key: str, action: str, number: int = 0) -> Event:
        job_id = self.job(key).id
        return [it for it in self.events if (it.job_id, it.action) == (job_id, action)][number]

    def call(self, key: str, kind: str, by: str = "", *, status: int = 200) -> Call:
        """The first call of this kind about the job that was answered so."""
        for call in self.calls:
            wanted = (kind, self.job(key).id, status)
            if (call.ask.kind, call.job_id, call.status) == wanted and by in ("", call.by):
                return call
        raise LookupError(key, kind, by)

    def change_job(self, key: str, **changes: Any) -> None:
        job = self.job(key)
        self.jobs[self.jobs.index(job)] = job._replace(**changes)

    def change_event(self, event: Event, **changes: Any) -> None:
        self.events[self.events.index(event)] = event._replace(**changes)

    def change_call(self, call: Call, **changes: Any) -> None:
        self.calls[self.calls.index(call)] = call._replace(**changes)

    def change_answer(self, call: Call, **changes: Any) -> None:
        self.change_call(call, answer={**call.answer, **changes})

    def forget(self, kind: str, by: str) -> None:
        self.calls = [call for call in self.calls if (call.ask.kind, call.by) != (kind, by)]

    def drop(self, key: str) -> None:
        """The job, with all that is known of it in the store."""
        job = self.job(key)
        self.jobs.remove(job)
        self.events = [event for event in self.events if event.job_id != job.id]
