"""Keeps the leases of all that a worker holds alive, and brings back what the server says of them.

A lease is due at a third of its length, so that two beats may be lost in a row; one call beats for
all that are due, and for those that soon will be. It goes on for as long as a job is not reported,
also past the lease's end: until the reaper took it, a lease that ran out may still be extended.
"""

import asyncio
import contextlib
import logging
import math
import random
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from functools import partial

from compute_orchestrator.client.ahead import MOST_HELD
from compute_orchestrator.client.client import OrchestratorClient
from compute_orchestrator.client.context import JobLog, Note, Notes
from compute_orchestrator.client.errors import (
    CallTimedOut,
    ClientError,
    JobNotFound,
    LeaseLost,
    UnusableAnswer,
)
from compute_orchestrator.client.models import BeatAnswer, ClaimedJob
from compute_orchestrator.client.presence import Presence
from compute_orchestrator.client.retries import CONTENT_REFUSED, Backoff
from compute_orchestrator.client.sizes import MOST_BYTES, size_of
from compute_orchestrator.client.syncing import BeatItem

logger = logging.getLogger("compute_orchestrator.worker")

HEARTBEATING = "heartbeating"

SHORTEST_LEASE_SECONDS = 1.0  # the protocol's
FIRST_RETRY_SECONDS = 0.2
LONGEST_RETRY_SECONDS = 5.0

# A task that saves in a tight loop must not become a stream of heartbeats.
SAVE_SPACING_SECONDS = 1.0

# Of a third of its lease: one that is due within it is not worth a call of its own.
RIDES_ALONG = 0.2

COMPLAINT_SPACING_SECONDS = 60.0

NOTHING = Note()


class Lease:
    """One job that is held: when its next beat is due, and what it has to say."""

    def __init__(self, job: ClaimedJob, now: float) -> None:
        self.job = job
        self.notes: Notes | None = None
        self.lost = False
        self.third = max(job.held_seconds, SHORTEST_LEASE_SECONDS) / 3
        self.due = now + _spread(self.third)
        self.is_urgent = False
        self.not_before = 0.0
        """Of an urgent beat."""
        self.when_flushed: Callable[[], None] | None = None
        """What waits until its note is sent."""
        self.is_note_under_way = False

    @property
    def log(self) -> JobLog:
        return JobLog(self.job)

    def lose(self) -> None:
        """The server says that it is over. Told once."""
        self.lost = True

    def cancel(self) -> None:
        """A cancel was requested. Told at each beat."""

    def take_note(self) -> Note:
        self.is_urgent = False
        note = NOTHING if self.notes is None else self.notes.take()
        self.is_note_under_way = bool(note)
        return note

    def put_back(self, note: Note) -> None:
        self.is_note_under_way = False
        if self.notes is not None and note:
            self.notes.put_back(note)


class Keeper:
    """Of one worker. `client` must not repeat calls by itself: this loop does, at its own pace."""

    def __init__(self, client: OrchestratorClient, worker_id: str, presence: Presence) -> None:
        self._client = client
        self._worker_id = worker_id
        self._presence = presence
        self._held: dict[str, Lease] = {}
        self._next = math.inf
        self._woken = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._pause = Backoff(FIRST_RETRY_SECONDS, LONGEST_RETRY_SECONDS)
        self._complained_at = -math.inf

    @property
    def held(self) -> Mapping[str, Lease]:
        """By lease token."""
        return self._held

    def keep(self, lease: Lease) -> None:
        self._held[lease.job.lease_token] = lease
        self._beat_at(lease, lease.due)

    def let_go(self, lease: Lease) -> None:
        self._held.pop(lease.job.lease_token, None)

    def listen_to(self, lease: Lease, notes: Notes) -> None:
        """Beat soon where a note is urgent, which is said from any thread."""
        lease.notes = notes
        notes.on_urgent(partial(self._hear, lease))

    def flush(self, lease: Lease, then: Callable[[], None]) -> None:
        """Send its note at once, before a report ends the lease: the next attempt needs it.

        `then` is called when it was sent or refused, and not at all if the lease is lost.
        """
        lease.when_flushed = then
        self._beat_at(lease, self._loop.time())

    async def run(self) -> None:
        """Beat until cancelled."""
        while True:
            await self._sleep()
            batch = self._take_due()
            if batch:
                await self._beat(batch)
            elif not self._held:
                self._presence.worked(HEARTBEATING)  # or at least no longer fails
            self._next = min((lease.due for lease in self._held.values()), default=math.inf)

    def _hear(self, lease: Lease) -> None:
        with contextlib.suppress(RuntimeError):  # a thread may outlive the loop
            self._loop.call_soon_threadsafe(self._hurry, lease)

    def _hurry(self, lease: Lease) -> None:
        if lease.lost:  # a thread that goes on has nothing more to say
            return
        lease.is_urgent = True
        self._beat_at(lease, max(lease.not_before, self._loop.time()))

    def _beat_at(self, lease: Lease, due: float) -> None:
        lease.due = min(lease.due, due)
        if lease.due < self._next:
            self._next = lease.due
            self._woken.set()

    async def _sleep(self) -> None:
        """Until a beat is due."""
        while (meant := self._next) > self._loop.time():
            self._woken.clear()
            try:
                async with asyncio.timeout_at(None if meant == math.inf else meant):
                    await self._woken.wait()
            except TimeoutError:
                self._complain(self._loop.time() - meant)

    def _complain(self, late_seconds: float) -> None:
        """Of a loop that stood still for so long that leases are in danger."""
        now = self._loop.time()
        shortest = min((lease.third for lease in self._held.values()), default=math.inf)
        if late_seconds < shortest or now < self._complained_at + COMPLAINT_SPACING_SECONDS:
            return
        self._complained_at = now
        logger.warning(
            "heartbeats come %.1f s late, since the event loop was blocked (or the process frozen):"
            " make a task that computes or waits without `await` a plain function,"
            " or use @app.task(..., process=True)",
            late_seconds,
        )

    def _take_due(self) -> Sequence[tuple[Lease, Note]]:
        """What goes into one call; if that is not all, the next call comes at once."""
        now = self._loop.time()
        if all(lease.due > now for lease in self._held.values()):
            return ()
        batch: list[tuple[Lease, Note]] = []
        size = 0
        for lease in self._held.values():
            if lease.due > now + RIDES_ALONG * lease.third:
                continue
            note = lease.take_note()
            size += size_of(note.progress) + size_of(note.checkpoint)
            batch.append((lease, note))
            if len(batch) >= MOST_HELD or size >= MOST_BYTES:
                break
        return batch

    async def _beat(self, batch: Sequence[tuple[Lease, Note]]) -> None:
        try:
            answers = await self._ask(batch)
        except CONTENT_REFUSED as error:
            await self._beat_one_by_one(batch, error)
        except ClientError as error:
            self._presence.failed(HEARTBEATING, error)
            self._repeat(batch, self._pause.wait_after(error))
        except Exception:
            # Whatever it was, the next beat may do better.
            logger.exception("heartbeats failed in a way that should not be")
            self._repeat(batch, self._pause.wait())
        else:
            self._presence.worked(HEARTBEATING)
            self._pause.reset()
            for (lease, note), answer in zip(batch, answers, strict=True):
                error = answer.error()
                self._take_in(lease, note, error, cancel_requested=answer.cancel_requested)

    async def _ask(self, batch: Sequence[tuple[Lease, Note]]) -> Sequence[BeatAnswer]:
        items = [BeatItem(lease.job, note.progress, note.checkpoint) for lease, note in batch]
        async with _in_time(min(lease.third for lease, _ in batch)):
            answer = await self._client.sync(self._worker_id, heartbeats=items)
        if len(answer.heartbeats) != len(batch):
            raise UnusableAnswer("not as many answers as heartbeats")
        return answer.heartbeats

    async def _beat_one_by_one(
        self, batch: Sequence[tuple[Lease, Note]], refusal: ClientError
    ) -> None:
        """The whole call was refused: one note may be to blame, and must not cost its neighbours.

        Those that had no note go together again, at once.
        """
        if not any(note for _, note in batch):
            self._presence.failed(HEARTBEATING, refusal)
            self._repeat(batch, self._pause.wait_after(refusal))
            return
        for lease, note in batch:
            if note:
                await self._beat_one(lease, note)
            else:
                lease.due = self._loop.time()

    async def _beat_one(self, lease: Lease, note: Note) -> None:
        try:
            async with _in_time(lease.third):
                state = await self._client.heartbeat(
                    lease.job, progress=note.progress, checkpoint=note.checkpoint
                )
        except ClientError as error:
            self._take_in(lease, note, error)
        except Exception:
            lease.log.exception("progress or checkpoint can't be sent")
            self._soon(lease)
        else:
            self._take_in(lease, note, None, cancel_requested=state.cancel_requested)

    def _take_in(
        self,
        lease: Lease,
        note: Note,
        error: ClientError | None,
        *,
        cancel_requested: bool = False,
    ) -> None:
        """What the server says of one lease, if it is still of interest."""
        if lease.job.lease_token not in self._held:
            return
        if error is None:
            self._kept(lease, cancel_requested=cancel_requested)
        elif isinstance(error, LeaseLost | JobNotFound):
            lease.log.debug("the lease is lost: %s", error)
            lease.due = math.inf
            if not lease.lost:
                lease.lose()
        elif isinstance(error, CONTENT_REFUSED) and note:
            # With the note in it every beat would be refused, and the lease would end.
            lease.log.error("the server refused progress or checkpoint: %s", error)
            self._soon(lease)
        else:
            lease.log.warning("a heartbeat failed: %s", error)
            self._repeat([(lease, note)], self._pause.wait_after(error))

    def _kept(self, lease: Lease, *, cancel_requested: bool) -> None:
        now = self._loop.time()
        lease.not_before = now + min(SAVE_SPACING_SECONDS, lease.third)
        lease.due = now + _spread(lease.third)
        if lease.is_urgent:  # it saved meanwhile
            lease.due = min(lease.due, lease.not_before)
        self._flushed(lease)
        if cancel_requested:
            lease.cancel()

    def _soon(self, lease: Lease) -> None:
        """Its note was given up; the beat itself is still owed."""
        lease.due = lease.not_before = self._loop.time() + min(FIRST_RETRY_SECONDS, lease.third)
        self._flushed(lease)

    def _flushed(self, lease: Lease) -> None:
        lease.is_note_under_way = False
        then = lease.when_flushed
        if then is None:
            return
        if lease.notes:
            lease.due = self._loop.time()
            return
        lease.when_flushed = None
        then()

    def _repeat(self, batch: Sequence[tuple[Lease, Note]], wait: float) -> None:
        for lease, note in batch:
            lease.put_back(note)
            lease.due = lease.not_before = self._loop.time() + min(wait, lease.third)


@contextlib.asynccontextmanager
async def _in_time(third: float) -> AsyncGenerator[None]:
    """One stalled call must not cost the beats that would follow it."""
    longest = max(third, SHORTEST_LEASE_SECONDS)
    try:
        async with asyncio.timeout(longest):
            yield
    except TimeoutError as error:
        raise CallTimedOut(f"no answer to heartbeats in {longest:.1f} s") from error


def _spread(third: float) -> float:
    return third * random.uniform(0.8, 1)  # noqa: S311 - spreads load, keeps no secret
