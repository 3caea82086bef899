"""A worker at work: takes jobs, runs them side by side, and stops in good order.

It lives on `client.sync`, and never has more than three calls under way: an exchange of results
for jobs, a long poll for jobs (both in `exchange.py`), and the heartbeats of all that it holds
(`keeper.py`). It may hold more jobs than run (`ahead.py`): those wait here, and are handed back as
soon as they would have to wait long.

Stopping: no new claims; what waits is handed back; what runs goes on, heartbeats included, for
`shutdown_seconds`; then the rest is stopped and released. A second `stop()` releases at once. Each
step has a deadline, so that an unreachable server does not hold the end up.
"""

import asyncio
import logging
import math
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import anyio

from compute_orchestrator.client.ahead import Pace
from compute_orchestrator.client.attempt import UNKNOWN_NAME_SECONDS, Attempt
from compute_orchestrator.client.calling import Middleware
from compute_orchestrator.client.calls import without_secrets
from compute_orchestrator.client.client import OrchestratorClient
from compute_orchestrator.client.context import Notes
from compute_orchestrator.client.exchange import Exchange, Wishes
from compute_orchestrator.client.keeper import Keeper
from compute_orchestrator.client.models import ClaimedJob, Status
from compute_orchestrator.client.observer import Observer
from compute_orchestrator.client.presence import Presence
from compute_orchestrator.client.tasks import Task

logger = logging.getLogger("compute_orchestrator.worker")

# A job that waited here so long could have run elsewhere.
LONGEST_WAIT_SECONDS = 1.0

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
    about: Mapping[str, object] = field(default_factory=dict[str, object])
    middleware: Sequence[Middleware] = ()
    observer: Observer = field(default_factory=Observer)
    drain: bool = False
    """Stop when no job is left to claim and none is held."""
    state: object = None
    """What the worker's lifespan yielded; each task's Context has it."""


class Serving:
    """Made where the loop runs. `client` must not repeat calls by itself: this does."""

    def __init__(self, client: OrchestratorClient, plan: Plan) -> None:
        self._client = client
        self._plan = plan
        self._observer = plan.observer
        self._loop = asyncio.get_running_loop()
        self._threads = anyio.CapacityLimiter(plan.concurrency)
        self._waiting: deque[Attempt] = deque()
        self._running: set[Attempt] = set()
        self._flushing: set[Attempt] = set()
        self._left_behind: list[Attempt] = []
        self._third = math.inf
        self._looking: asyncio.TimerHandle | None = None
        self._stop = asyncio.Event()
        self._at_once = asyncio.Event()
        self._changed = asyncio.Event()
        presence = Presence(plan.observer)
        self._pace = Pace(plan.concurrency, self._loop.time())
        self._keeper = Keeper(client, plan.worker_id, presence)
        wishes = Wishes(
            worker_id=plan.worker_id,
            queues=plan.queues,
            lease_seconds=plan.lease_seconds,
            about=plan.about,
            drain=plan.drain,
        )
        self._exchange = Exchange(client, wishes, self, pace=self._pace, presence=presence)

    def stop(self) -> None:
        """From the loop's thread. The second time: at once."""
        if self._stop.is_set():
            self._at_once.set()
        self._stop.set()

    @property
    def is_stuck(self) -> bool:
        """Whether a task still runs although it was told to stop."""
        return any(a.is_stuck for a in (*self._left_behind, *self._running))

    async def run(self) -> None:
        """Until `stop()`. Cancelled from outside it releases at once, then lets go."""
        self._tell_start()
        loops = [
            asyncio.create_task(self._keeper.run()),
            asyncio.create_task(self._exchange.run()),
        ]
        for each in loops:  # it never ends before, but by a bug
            each.add_done_callback(lambda _: self._stop.set())
        try:
            await self._stop.wait()
            await self._wind_up()
        except asyncio.CancelledError:
            self.stop()
            self.stop()
            with anyio.CancelScope(shield=True):
                await self._wind_up()
            raise
        finally:
            for each in loops:
                each.cancel()
            await asyncio.wait(loops)
        for each in loops:
            if not each.cancelled():
                each.result()

    # What the exchange asks and tells: exchange.Desk

    @property
    def running(self) -> int:
        return len(self._running)

    @property
    def third_seconds(self) -> float:
        return self._third

    @property
    def is_empty(self) -> bool:
        return not self._keeper.held

    def room(self) -> int:
        ahead = self._pace.ahead(self._loop.time(), self._third)
        held = len(self._running) + len(self._waiting) + len(self._flushing)
        held += self._exchange.undelivered
        return self._plan.concurrency + ahead - held

    def take(self, jobs: Sequence[ClaimedJob]) -> bool:
        self._observer.claimed(len(jobs))
        self._third = math.inf
        now = self._loop.time()
        known = [self._take(job, now) for job in jobs if job.lease_token not in self._keeper.held]
        self._start_waiting()
        return any(known)

    def done(self, attempt: Attempt) -> None:
        self._flushing.discard(attempt)
        self._keeper.let_go(attempt)
        self._changed.set()

    def changed(self) -> None:
        self._changed.set()
        self._observer.holding(len(self._running), len(self._waiting))

    def drained(self) -> None:
        logger.info("no job is left")
        self.stop()

    # The way of a job

    def _take(self, job: ClaimedJob, now: float) -> bool:
        """Whether it can be worked on here."""
        attempt = Attempt(
            job,
            self._plan.tasks.get(job.name),
            now,
            on_lost=self._lost,
            on_cancel=self._cancel_waiting,
        )
        self._third = min(self._third, attempt.third)
        self._keeper.keep(attempt)
        if self._stop.is_set():  # its claim was on its way when the stop came
            self._observer.handed_back(1)
            self._release([attempt], "the worker stops")
        elif attempt.task is None:
            self._release(
                [attempt],
                "there is no task of this name here",
                run_in_seconds=UNKNOWN_NAME_SECONDS,
            )
            return False
        elif job.cancel_requested:
            attempt.obey()
            self._exchange.report(attempt)
        else:
            self._waiting.append(attempt)
        return True

    def _start_waiting(self) -> None:
        while self._waiting and len(self._running) < self._plan.concurrency:
            self._start(self._waiting.popleft())
        if self._waiting and self._looking is None:
            self._look_again()

    def _start(self, attempt: Attempt) -> None:
        notes = Notes()
        self._keeper.listen_to(attempt, notes)
        self._running.add(attempt)
        self._observer.started(attempt.job)
        attempt.start(
            notes,
            self._over,
            threads=self._threads,
            middleware=self._plan.middleware,
            state=self._plan.state,
        )

    def _over(self, attempt: Attempt) -> None:
        """Its task is over, or was given up; its place is free."""
        self._running.discard(attempt)
        if attempt.is_stuck:
            self._left_behind.append(attempt)
        self._pace.ended()
        report = attempt.report
        if report is None:
            self.done(attempt)
            self._exchange.wake()
        else:
            self._observer.ended(attempt.job, str(report.status), self._loop.time() - attempt.since)
            self._report(attempt)
        self._start_waiting()

    def _report(self, attempt: Attempt) -> None:
        """A success says all; before anything else goes what the next attempt needs."""
        is_success = attempt.report is not None and attempt.report.status is Status.SUCCEEDED
        if (attempt.notes or attempt.is_note_under_way) and not is_success:
            self._flushing.add(attempt)
            self._keeper.flush(attempt, partial(self._flushed, attempt))
        else:
            self._exchange.report(attempt)

    def _flushed(self, attempt: Attempt) -> None:
        self._flushing.discard(attempt)
        self._exchange.report(attempt)

    # What does not run

    def _release(
        self, attempts: Iterable[Attempt], reason: str, *, run_in_seconds: float | None = None
    ) -> None:
        for attempt in attempts:
            attempt.release(reason, run_in_seconds=run_in_seconds)
            self._exchange.report(attempt)

    def _hand_back_waiting(self, reason: str) -> None:
        if not self._waiting:
            return
        waiting = list(self._waiting)
        self._waiting.clear()
        self._observer.handed_back(len(waiting))
        self._release(waiting, reason)

    def _look_again(self) -> None:
        """Whether the jobs that wait here should rather run elsewhere; again while any waits."""
        self._looking = None
        if not self._waiting:
            return
        now = self._loop.time()
        since = self._waiting[0].since
        if now < since + LONGEST_WAIT_SECONDS:
            self._looking = self._loop.call_at(since + LONGEST_WAIT_SECONDS, self._look_again)
            return
        logger.info("%d jobs are handed back: those before them take long", len(self._waiting))
        self._pace.slowed(now)
        self._hand_back_waiting("others may run it sooner")

    def _cancel_waiting(self, attempt: Attempt) -> None:
        if attempt in self._waiting:
            self._waiting.remove(attempt)
            attempt.obey()
            self._exchange.report(attempt)

    def _lost(self, attempt: Attempt) -> None:
        self._observer.lost(attempt.job)
        if attempt in self._waiting:
            self._waiting.remove(attempt)
            self.done(attempt)
        elif attempt.when_flushed is not None:
            self.done(attempt)

    # The end

    async def _wind_up(self) -> None:
        self._tell_stop()
        self._exchange.stop_claiming()
        self._hand_back_waiting("the worker stops")
        await self._until_idle(self._plan.shutdown_seconds, unless=self._at_once)
        for attempt in list(self._running):
            attempt.hand_back()
        await self._until_idle(RELEASE_SECONDS)
        for lease in self._keeper.held.values():
            lease.log.warning("could not be handed back; its lease is left to run out")

    async def _until_idle(self, seconds: float, *, unless: asyncio.Event | None = None) -> None:
        """Until nothing is held and no claim is under way, at most so long."""
        waiting = [asyncio.create_task(self._idle())]
        if unless is not None:
            waiting.append(asyncio.create_task(unless.wait()))
        await asyncio.wait(waiting, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        for each in waiting:
            each.cancel()

    async def _idle(self) -> bool:
        """A claim that has had no answer is asked for as long as the worker lives anyway, and at
        least so long.
        """
        enough = self._loop.time() + RELEASE_SECONDS
        while self._keeper.held or self._exchange.is_claiming:
            self._changed.clear()
            try:
                async with asyncio.timeout_at(None if self._keeper.held else enough):
                    await self._changed.wait()
            except TimeoutError:
                self._exchange.forget_claim()
        return True

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
