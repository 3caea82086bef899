"""A worker at work: claims jobs, runs them side by side, and stops in good order.

Stopping: no new claims; what runs goes on, heartbeats included, for `shutdown_seconds`; then the
rest is stopped and released. A second `stop()` releases at once. Each step has a deadline, so that
an unreachable server does not hold the end up.
"""

import asyncio
import contextlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import anyio

from compute_orchestrator.client.attempt import Attempt
from compute_orchestrator.client.calls import without_secrets
from compute_orchestrator.client.client import OrchestratorClient, new_id
from compute_orchestrator.client.errors import (
    ClientError,
    ConnectFailed,
    NoAnswer,
    Overloaded,
    ShuttingDown,
)
from compute_orchestrator.client.models import ClaimedJob
from compute_orchestrator.client.retries import Backoff, is_passing
from compute_orchestrator.client.tasks import Task

logger = logging.getLogger("compute_orchestrator.worker")

FIRST_IDLE_SECONDS = 0.05
LONGEST_IDLE_SECONDS = 1.0
FIRST_REPEAT_SECONDS = 0.1
LONGEST_REPEAT_SECONDS = 5.0

# For cleaning up and for the last reports and releases, once the jobs were told to stop.
RELEASE_SECONDS = 5.0


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a worker was told."""

    worker_id: str
    queues: Sequence[str]
    concurrency: int
    lease_seconds: float | None
    shutdown_seconds: float
    tasks: Mapping[str, Task]


class Serving:
    """`client` must not repeat calls by itself: these loops do, for as long as it takes."""

    def __init__(self, client: OrchestratorClient, plan: Plan) -> None:
        self._client = client
        self._plan = plan
        self._threads = anyio.CapacityLimiter(plan.concurrency)
        self._running: dict[asyncio.Task[None], Attempt] = {}
        self._room = asyncio.Event()
        self._room.set()
        self._stop = asyncio.Event()
        self._at_once = asyncio.Event()
        self._unanswered = Backoff(FIRST_REPEAT_SECONDS, LONGEST_REPEAT_SECONDS)
        self._away = False
        self._left_behind: list[Attempt] = []

    def stop(self) -> None:
        """From the loop's thread. The second time: at once."""
        if self._stop.is_set():
            self._at_once.set()
        self._stop.set()
        self._room.set()

    @property
    def is_stuck(self) -> bool:
        """Whether a task still runs although it was told to stop."""
        return any(a.is_stuck for a in (*self._left_behind, *self._running.values()))

    async def run(self) -> None:
        """Until `stop()`. Cancelled from outside it releases at once, then lets go."""
        self._tell_start()
        claiming = asyncio.create_task(self._claim_until_stopped())
        claiming.add_done_callback(lambda _: self._stop.set())  # it never ends before, but by a bug
        try:
            await self._stop.wait()
            await self._drain(claiming)
            if not claiming.cancelled():
                claiming.result()
        except asyncio.CancelledError:
            self.stop()
            self.stop()
            with anyio.CancelScope(shield=True):
                await self._drain(claiming)
            raise

    async def _claim_until_stopped(self) -> None:
        idle = Backoff(FIRST_IDLE_SECONDS, LONGEST_IDLE_SECONDS)
        while True:
            await self._room.wait()
            if self._stop.is_set():
                return
            try:
                job = await self._claim()
            except Exception:
                logger.exception("a claim failed in a way that should not be")
                job = None
            if job is not None:
                self._start(job)
            if job is not None and job.name in self._plan.tasks:
                idle.reset()
            else:  # also after an unknown name: a queue full of them must not become a busy loop
                await self._stopped_within(idle.wait())

    async def _claim(self) -> ClaimedJob | None:
        """One claim, repeated with the same request id until it is answered.

        A refusal ends it, unless an earlier answer was lost: the refusal may be a stranger's, and
        a lease that is not asked for again costs its job a retry.
        """
        request_id = new_id()
        may_hold_a_lease = False
        while True:
            try:
                job = await self._client.claim(
                    self._plan.worker_id,
                    queues=self._plan.queues,
                    lease_seconds=self._plan.lease_seconds,
                    request_id=request_id,
                )
            except ClientError as error:
                wait = self._unanswered.wait_after(error)
                self._tell_away(error)
                if not is_passing(error) and not may_hold_a_lease:
                    await self._stopped_within(wait)
                    return None
                if not isinstance(error, ConnectFailed | Overloaded | ShuttingDown):
                    may_hold_a_lease = True
                # Stopping: a lease whose answer was lost is asked for, to be handed back.
                if may_hold_a_lease and self._stop.is_set():
                    await asyncio.sleep(wait)
                elif await self._stopped_within(wait) and not may_hold_a_lease:
                    return None
            else:
                self._unanswered.reset()
                self._tell_back()
                return job

    def _start(self, job: ClaimedJob) -> None:
        attempt = Attempt(self._client, job, self._plan.tasks.get(job.name), threads=self._threads)
        if self._stop.is_set():
            attempt.hand_back()  # its claim was on its way when the stop came
        running = asyncio.create_task(attempt.run())
        self._running[running] = attempt
        running.add_done_callback(self._finish)
        if len(self._running) >= self._plan.concurrency and not self._stop.is_set():
            self._room.clear()

    def _finish(self, running: "asyncio.Task[None]") -> None:
        attempt = self._running.pop(running)
        if attempt.is_stuck:
            self._left_behind.append(attempt)
        self._room.set()
        if not running.cancelled() and (error := running.exception()) is not None:
            attempt.log.error("its lease is left to run out", exc_info=error)

    async def _stopped_within(self, seconds: float) -> bool:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stop.wait()
        return self._stop.is_set()

    async def _drain(self, claiming: "asyncio.Task[None]") -> None:
        self._tell_stop()
        asyncio.get_running_loop().call_later(RELEASE_SECONDS, claiming.cancel)
        at_once = asyncio.create_task(self._at_once.wait())
        await self._until_idle(claiming, self._plan.shutdown_seconds, unless=at_once)
        at_once.cancel()
        for attempt in self._running.values():
            attempt.hand_back()
        await self._until_idle(claiming, RELEASE_SECONDS)
        left = {claiming, *self._running}
        for attempt in self._running.values():
            attempt.log.warning("could not be handed back; its lease is left to run out")
        for task in left:
            task.cancel()
        await asyncio.wait(left, timeout=1)

    async def _until_idle(
        self,
        claiming: "asyncio.Task[None]",
        seconds: float,
        *,
        unless: "asyncio.Task[bool] | None" = None,
    ) -> None:
        """Until no job runs and no claim is under way, at most so long."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while pending := {t for t in (claiming, *self._running) if not t.done()}:
                    watched = pending if unless is None else {*pending, unless}
                    await asyncio.wait(watched, return_when=asyncio.FIRST_COMPLETED)
                    if unless is not None and unless.done():
                        return

    def _tell_start(self) -> None:
        plan = self._plan
        logger.info(
            "worker %s at %s; queues %s; tasks %s; %d at once",
            plan.worker_id,
            without_secrets(self._client.url),
            ", ".join(plan.queues),
            ", ".join(plan.tasks),
            plan.concurrency,
        )

    def _tell_stop(self) -> None:
        if not self._running:
            logger.info("stopping: no job is running")
            return
        logger.info(
            "stopping: %d running, with %g s to end; once more hands back at once",
            len(self._running),
            self._plan.shutdown_seconds,
        )

    def _tell_away(self, error: ClientError) -> None:
        """Once for each time that the server goes away, not at each try."""
        if not self._away and isinstance(error, NoAnswer):
            logger.warning("the server is away, and is asked again until it is back: %s", error)
        elif not self._away:
            logger.warning("claiming fails, and is tried again: %s", error)
        self._away = True

    def _tell_back(self) -> None:
        if self._away:
            logger.info("the server is back: claiming works again")
        self._away = False
