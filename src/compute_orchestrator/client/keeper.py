"""Keeps one job's lease alive, and brings back what the server says of it.

A beat goes out at a third of the lease, so that two may be lost in a row. It is sent for as long
as the job is not reported, also past the lease's end: until the reaper took it, a lease that ran
out may still be extended.
"""

import asyncio
import contextlib
import random
from collections.abc import Callable

from compute_orchestrator.client.client import OrchestratorClient
from compute_orchestrator.client.context import JobLog, Notes
from compute_orchestrator.client.errors import CallTimedOut, ClientError, JobNotFound, LeaseLost
from compute_orchestrator.client.models import ClaimedJob, LeaseState
from compute_orchestrator.client.retries import CONTENT_REFUSED, Backoff

SHORTEST_LEASE_SECONDS = 1.0  # the protocol's
FIRST_RETRY_SECONDS = 0.2

# A task that saves in a tight loop must not become a stream of heartbeats.
SAVE_SPACING_SECONDS = 1.0


class Keeper:
    """One lease. `client` must not repeat calls by itself: this loop does, at its own pace."""

    def __init__(
        self,
        client: OrchestratorClient,
        job: ClaimedJob,
        notes: Notes,
        *,
        on_lost: Callable[[], None],
        on_cancel: Callable[[], None],
        log: JobLog,
    ) -> None:
        self.lost = False
        self._client = client
        self._job = job
        self._notes = notes
        self._on_lost = on_lost
        self._on_cancel = on_cancel
        self._log = log
        self._third = max(job.held_seconds, SHORTEST_LEASE_SECONDS) / 3
        self._pause = Backoff(min(FIRST_RETRY_SECONDS, self._third), self._third)
        self._loop = asyncio.get_running_loop()
        self._woken = asyncio.Event()
        self._not_before = 0.0
        self._one_at_a_time = asyncio.Lock()
        notes.on_urgent(self.wake)

    async def run(self) -> None:
        """Beat until the lease is lost or the task that runs this is cancelled."""
        wait = self._next_wait()
        while not self.lost:
            await self._sleep(wait)
            try:
                await self._beat()
                self._pause.reset()
                wait = self._next_wait()
                spacing = min(SAVE_SPACING_SECONDS, self._third)
            except ClientError as error:
                wait = spacing = self._pause.wait_after(error)
                self._log.warning("a heartbeat failed, the next in %.1f s: %s", wait, error)
            except Exception:  # noqa: BLE001 - whatever it was, the next beat may do better
                wait = spacing = self._pause.wait()
                self._log.exception("a heartbeat failed, the next in %.1f s", wait)
            self._not_before = self._loop.time() + spacing

    async def flush(self) -> None:
        """Send what the task left, before a report ends the lease. The next attempt needs it."""
        pause = Backoff(FIRST_RETRY_SECONDS, self._third)
        while self._notes and not self.lost:
            try:
                await self._beat()
            except CONTENT_REFUSED:
                return
            except ClientError as error:
                await asyncio.sleep(pause.wait_after(error))

    def wake(self) -> None:
        """Beat soon. From any thread; a thread may outlive the loop."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._woken.set)

    def _next_wait(self) -> float:
        return self._third * random.uniform(0.8, 1)  # noqa: S311 - spreads load, keeps no secret

    async def _sleep(self, wait: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait):
                await self._woken.wait()
                await asyncio.sleep(self._not_before - self._loop.time())

    async def _beat(self) -> None:
        async with self._one_at_a_time:
            if self.lost:
                return
            self._woken.clear()
            note = self._notes.take()
            try:
                state = await self._ask(note.progress, note.checkpoint)
            except (LeaseLost, JobNotFound) as error:
                self._lose(error)
                return
            except BaseException as error:
                if isinstance(error, CONTENT_REFUSED):
                    # With the note in it every beat would be refused, and the lease would end.
                    self._log.error("the server refused progress or checkpoint: %s", error)
                else:
                    self._notes.put_back(note)
                raise
            if state.cancel_requested:
                self._on_cancel()

    async def _ask(self, progress: object, checkpoint: object) -> LeaseState:
        """In time: one stalled call must not cost the beats that would follow it."""
        longest = max(self._third, SHORTEST_LEASE_SECONDS)
        try:
            async with asyncio.timeout(longest):
                return await self._client.heartbeat(
                    self._job, progress=progress, checkpoint=checkpoint
                )
        except TimeoutError as error:
            raise CallTimedOut(f"no answer to a heartbeat in {longest:.1f} s") from error

    def _lose(self, error: LeaseLost | JobNotFound) -> None:
        self.lost = True
        self._log.debug("the lease is lost: %s", error)
        self._on_lost()
