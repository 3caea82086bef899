"""The calls that bring a worker its jobs and take its results away.

- The exchange: one at a time. It carries all results that wait and, if there is room and no claim
  is under way, a claim.
- The long poll: a claim alone, which waits at the server; only when no result waits here.

One claim is under way at a time. While it has had no answer it is repeated with the same request
id: a lease whose answer was lost, and that is not asked for again, costs its job a retry. A result
stays here until it has a definite answer, or its lease is known to be over.
"""

import asyncio
import logging
import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from compute_orchestrator.client.ahead import Pace
from compute_orchestrator.client.attempt import Attempt
from compute_orchestrator.client.client import OrchestratorClient
from compute_orchestrator.client.errors import (
    ClientError,
    ConnectFailed,
    Overloaded,
    ShuttingDown,
    UnusableAnswer,
)
from compute_orchestrator.client.models import ClaimedJob
from compute_orchestrator.client.names import new_id
from compute_orchestrator.client.outbox import Outbox
from compute_orchestrator.client.outcomes import second_best
from compute_orchestrator.client.presence import Presence
from compute_orchestrator.client.reports import Report
from compute_orchestrator.client.retries import CONTENT_REFUSED, DEFINITE, Backoff, is_passing
from compute_orchestrator.client.syncing import ClaimPart

logger = logging.getLogger("compute_orchestrator.worker")

CLAIMING = "claiming"
REPORTING = "reporting"

# The protocol's, for one call.
MOST_CLAIMED = 1_000

POLL_SECONDS = 20.0

# Results end in bursts; the first of one waits so long, at most, for the others.
LINGER_SECONDS = 0.002

# After a claim that brought nothing it can use, and did not wait for it.
FIRST_IDLE_SECONDS = 0.05
LONGEST_IDLE_SECONDS = 1.0

FIRST_REPEAT_SECONDS = 0.1
LONGEST_REPEAT_SECONDS = 5.0

# Who works here is said again, for a server that forgot it.
ABOUT_EVERY_SECONDS = 60.0


class Desk(Protocol):
    """Where the jobs are."""

    def room(self) -> int:
        """How many jobs more there is a place for."""
        ...

    def take(self, jobs: Sequence[ClaimedJob]) -> bool:
        """They came. Whether any of them can be worked on here."""
        ...

    def done(self, attempt: Attempt) -> None:
        """There is nothing more to say of it."""
        ...

    def changed(self) -> None:
        """A call is over."""
        ...

    def drained(self) -> None:
        """No job is left to claim, and none is held."""
        ...

    @property
    def running(self) -> int: ...

    @property
    def third_seconds(self) -> float:
        """Of the shortest lease that came last."""
        ...

    @property
    def is_empty(self) -> bool:
        """Whether nothing is held."""
        ...


@dataclass(frozen=True, kw_only=True)
class Wishes:
    """What is said with each claim."""

    worker_id: str
    queues: Sequence[str]
    lease_seconds: float | None
    about: Mapping[str, object]
    drain: bool = False


@dataclass
class Claim:
    """One that has had no answer yet."""

    limit: int
    request_id: str
    is_under_way: bool = False
    may_hold_leases: bool = False
    """It was answered, perhaps, and the answer was lost."""


class Exchange:
    """`client` must not repeat calls by itself: this does, for as long as it takes."""

    def __init__(
        self,
        client: OrchestratorClient,
        wishes: Wishes,
        desk: Desk,
        *,
        pace: Pace,
        presence: Presence,
    ) -> None:
        self._client = client
        self._wishes = wishes
        self._desk = desk
        self._pace = pace
        self._presence = presence
        self._loop = asyncio.get_running_loop()
        self._woken = asyncio.Event()
        self._outbox = Outbox()
        self._unanswered = Backoff(FIRST_REPEAT_SECONDS, LONGEST_REPEAT_SECONDS)
        self._idle = Backoff(FIRST_IDLE_SECONDS, LONGEST_IDLE_SECONDS)
        self._report_at = -math.inf
        self._claim_at = -math.inf
        self._claim: Claim | None = None
        self._poll: asyncio.Task[None] | None = None
        self._is_stopping = False
        self._about_at = -math.inf

    def report(self, attempt: Attempt) -> None:
        """Send what it has to report."""
        self._outbox.put(attempt)
        self._woken.set()

    def wake(self) -> None:
        """There may be room."""
        self._woken.set()

    def stop_claiming(self) -> None:
        """A claim that may have been answered is repeated still, without waiting."""
        self._is_stopping = True
        self._report_at = self._claim_at = -math.inf
        self._unanswered.reset()
        if self._poll is not None:
            self._poll.cancel()
        else:
            self._drop_claim()
        self._woken.set()

    def forget_claim(self) -> None:
        """Its leases, if it brought any, are left to run out."""
        self._claim = None
        self._desk.changed()

    @property
    def is_claiming(self) -> bool:
        """Whether jobs may still come."""
        return self._claim is not None

    @property
    def undelivered(self) -> int:
        """Reports that the server did not take so far: each keeps a place, or there would be ever
        more of them.
        """
        return self._outbox.undelivered

    async def run(self) -> None:
        """Call whenever there is something to say or to ask, until cancelled."""
        try:
            while True:
                self._woken.clear()
                try:
                    wait = await self._step()
                except Exception:
                    logger.exception("an exchange failed in a way that should not be")
                    wait = self._unanswered.wait()
                if wait > 0:
                    await self._sleep(wait)
        finally:
            if self._poll is not None:
                self._poll.cancel()
                await asyncio.wait({self._poll})

    async def _sleep(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(None if seconds == math.inf else seconds):
                await self._woken.wait()
        except TimeoutError:
            pass

    async def _step(self) -> float:
        """Do what is due. For how long there is nothing more to do, unless it is woken."""
        await self._linger()
        now = self._loop.time()
        if self._outbox and self._report_at <= now:
            await self._call()
            return 0
        report_in = self._report_at - now if self._outbox else math.inf
        if not self._may_claim():
            return report_in
        if self._claim_at > now:
            return min(report_in, self._claim_at - now)
        if self._is_stopping or self._wishes.drain:
            await self._call()
            return 0
        if not self._outbox:
            self._poll = asyncio.create_task(self._wait_for_jobs(self._next_claim()))
            self._poll.add_done_callback(self._poll_over)
        return report_in

    async def _linger(self) -> None:
        """Until no task can end without waiting."""
        end = self._loop.time() + LINGER_SECONDS
        seen = -1
        while self._desk.running and len(self._outbox) > seen and self._loop.time() < end:
            seen = len(self._outbox)
            await asyncio.sleep(0)
            await asyncio.sleep(0)  # one that was started just now needs two

    # Claims

    def _may_claim(self) -> bool:
        if self._poll is not None:
            return False
        if self._claim is not None:
            return True
        return not self._is_stopping and self._desk.room() > 0

    def _next_claim(self) -> Claim:
        """The one that has had no answer, or a new one."""
        if self._claim is None:
            self._claim = Claim(min(self._desk.room(), MOST_CLAIMED), new_id())
        return self._claim

    def _part(self, claim: Claim, wait_seconds: float | None = None) -> ClaimPart:
        """At a stop it only asks what an earlier copy brought: from a queue that nobody uses."""
        return ClaimPart(
            (claim.request_id,) if self._is_stopping else self._wishes.queues,
            claim.limit,
            lease_seconds=self._wishes.lease_seconds,
            wait_seconds=wait_seconds,
            request_id=claim.request_id,
        )

    async def _wait_for_jobs(self, claim: Claim) -> None:
        """The long poll."""
        about = self._about()
        begun = self._loop.time()
        claim.is_under_way = True
        try:
            answer = await self._client.sync(
                self._wishes.worker_id,
                about=about,
                claim=self._part(claim, POLL_SECONDS),
            )
        except ClientError as error:
            self._claim_failed(claim, error, self._unanswered.wait_after(error))
        except BaseException:
            self._claim_broke(claim)
            raise
        else:
            self._presence.worked(CLAIMING)
            self._unanswered.reset()
            self._said(about)
            waited = self._loop.time() - begun
            self._claimed(answer.jobs, is_early=waited < POLL_SECONDS / 2)

    def _poll_over(self, poll: "asyncio.Task[None]") -> None:
        self._poll = None
        if self._is_stopping:
            self._drop_claim()
        self._desk.changed()
        self._woken.set()
        if not poll.cancelled() and (error := poll.exception()) is not None:
            logger.error("a long poll broke in a way that should not be", exc_info=error)

    def _claimed(self, jobs: Sequence[ClaimedJob], *, is_early: bool) -> None:
        """The claim was answered. `is_early`: to ask again at once would make a busy loop."""
        self._claim = None
        is_useful = bool(jobs) and self._desk.take(jobs)
        if is_useful:
            self._idle.reset()
        elif jobs or is_early:
            self._claim_at = self._loop.time() + self._idle.wait()

    def _claim_failed(self, claim: Claim, error: ClientError, wait: float) -> None:
        """It is repeated, unless it was refused and no earlier answer to it was lost.

        Where one was, the refusal may be a stranger's: a proxy, or a program that has the port
        while the server restarts.
        """
        self._presence.failed(CLAIMING, error)
        claim.is_under_way = False
        is_lost = is_passing(error)
        if is_lost and not isinstance(error, ConnectFailed | Overloaded | ShuttingDown):
            claim.may_hold_leases = True
        if claim.may_hold_leases:
            wait = min(wait, self._desk.third_seconds)  # nobody heartbeats for them
        self._claim_at = self._loop.time() + wait
        if self._is_stopping or not is_lost:
            self._drop_claim()

    def _claim_broke(self, claim: Claim) -> None:
        claim.is_under_way = False
        claim.may_hold_leases = True
        self._claim_at = self._loop.time() + self._unanswered.wait()

    def _drop_claim(self) -> None:
        """Unless leases may hang on it."""
        claim = self._claim
        if claim is not None and not (claim.may_hold_leases or claim.is_under_way):
            self._claim = None

    # Reports

    async def _call(self) -> None:
        """The exchange."""
        now = self._loop.time()
        batch = self._next_batch() if self._report_at <= now else []
        may_claim = self._claim_at <= now and self._may_claim()
        claim = self._next_claim() if may_claim else None
        if not batch and claim is None:
            return
        await self._send(batch, claim)
        self._desk.changed()

    async def _send(self, batch: Sequence[Attempt], claim: Claim | None) -> None:
        begun = self._loop.time()
        was_idle = self._desk.is_empty
        about = self._about()
        if claim is not None:
            claim.is_under_way = True
        try:
            answer = await self._client.sync(
                self._wishes.worker_id,
                about=about,
                reports=[(attempt.job, _report(attempt)) for attempt in batch],
                claim=claim and self._part(claim),
            )
            if len(answer.reports) != len(batch):
                raise UnusableAnswer("not as many answers as reports")  # noqa: TRY301
        except ClientError as error:
            await self._failed(batch, claim, error)
            return
        except Exception:
            logger.exception("an exchange broke in a way that should not be")
            if claim is not None:
                self._claim_broke(claim)
            self._report_at = self._loop.time() + self._unanswered.wait()
            await self._report_one_by_one(batch)
            return
        now = self._loop.time()
        self._pace.called(now - begun, now)
        self._unanswered.reset()
        self._said(about)
        for attempt, said in zip(batch, answer.reports, strict=True):
            self._answered(attempt, said.error(), said.status or "")
        if batch and self._report_at <= now:
            self._presence.worked(REPORTING)
        if claim is not None:
            self._presence.worked(CLAIMING)
            self._claimed(answer.jobs, is_early=not batch)
            if self._wishes.drain and was_idle and not answer.jobs and self._desk.is_empty:
                self._desk.drained()

    def _next_batch(self) -> list[Attempt]:
        """A late report of a lost lease is not sent, unless it may be what ended the lease."""
        batch: list[Attempt] = []
        for attempt in self._outbox.take():
            if attempt.lost and not attempt.was_sent:
                self._desk.done(attempt)
                continue
            attempt.is_last = attempt.lost
            attempt.was_sent = True
            batch.append(attempt)
        return batch

    async def _failed(
        self, batch: Sequence[Attempt], claim: Claim | None, error: ClientError
    ) -> None:
        if isinstance(error, CONTENT_REFUSED) and any(map(_is_suspect, batch)):
            if claim is not None:
                claim.is_under_way = False
            await self._report_one_by_one(batch)
            return
        wait = self._unanswered.wait_after(error)
        if claim is not None:
            self._claim_failed(claim, error, wait)
        if batch and not (claim is not None and isinstance(error, Overloaded)):
            self._presence.failed(REPORTING, error)
            self._report_at = self._loop.time() + wait
        # An overloaded server refuses claims first: the reports go again at once, without one.
        kept = [attempt for attempt in batch if self._is_kept(attempt, error)]
        self._outbox.put_back(kept)

    async def _report_one_by_one(self, batch: Sequence[Attempt]) -> None:
        """The whole call was refused: one result may be to blame, and must not cost the others.

        What carries nothing of a task goes with the next call.
        """
        self._outbox.put_back([attempt for attempt in batch if not _is_suspect(attempt)])
        suspects = deque(filter(_is_suspect, batch))
        while suspects:
            attempt = suspects.popleft()
            try:
                job = await self._client.report(attempt.job, _report(attempt))
            except ClientError as error:
                self._answered(attempt, error)
                if not isinstance(error, DEFINITE):  # so it would go with the others
                    self._outbox.put_back(suspects)
                    return
            except Exception:
                attempt.log.exception("it can't be reported; its lease is left to run out")
                self._desk.done(attempt)
            else:
                self._answered(attempt, None, job.status)

    def _answered(self, attempt: Attempt, error: ClientError | None, stands: str = "") -> None:
        report = _report(attempt)
        if error is None:
            attempt.tell_end(report, stands)
            self._desk.done(attempt)
        elif not isinstance(error, DEFINITE):
            self._report_at = self._loop.time() + self._unanswered.wait_after(error)
            self._presence.failed(REPORTING, error)
            if self._is_kept(attempt, error):
                self._outbox.put_back([attempt])
        elif (instead := second_best(report, error)) is not None:
            attempt.log.warning("reported in another way, since: %s", error)
            attempt.report = instead
            self._outbox.put_back([attempt])
        else:
            attempt.log.warning("the report (%s) was refused: %s", report.status, error)
            self._desk.done(attempt)

    def _is_kept(self, attempt: Attempt, error: ClientError) -> bool:
        """Once the lease is known to be over, a report is sent one last time."""
        if not attempt.is_last:
            return True
        attempt.log.warning("whether the report was taken is not known: %s", error)
        self._desk.done(attempt)
        return False

    def _about(self) -> Mapping[str, object] | None:
        return self._wishes.about if self._about_at <= self._loop.time() else None

    def _said(self, about: Mapping[str, object] | None) -> None:
        if about is not None:
            self._about_at = self._loop.time() + ABOUT_EVERY_SECONDS


def _is_suspect(attempt: Attempt) -> bool:
    """Whether its report carries what a task made."""
    report = _report(attempt)
    return report.result is not None or report.error is not None


def _report(attempt: Attempt) -> Report:
    assert attempt.report is not None  # noqa: S101 - without one it is not put here
    return attempt.report
