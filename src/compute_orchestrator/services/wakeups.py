"""Wake-ups: who sleeps until there is something to do learns here that there may be.

A wake-up is a hint, sent after the commit: its sleeper looks for itself. One job that became
claimable wakes one waiter, and a wake-up that its waiter can't use goes to the next one. What is
missed here, since another replica did it, the lookout finds (`services/lookout.py`).
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Collection, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager

from compute_orchestrator.domain.lifecycle import FINAL, Status, Step
from compute_orchestrator.domain.values import JobId


class Sleeper:
    """One long poll. It sleeps until it is woken, its client is gone, or its time is over."""

    def __init__(self, queues: Sequence[str] = ()) -> None:
        self.queues = queues
        self.woken_for: str | None = None
        """The queue that the last wake-up was about, until it is used."""
        self._bell = asyncio.get_running_loop().create_future()

    def wake(self, queue: str | None = None) -> None:
        self.woken_for = queue
        self.ring()

    def ring(self) -> None:
        """End its sleep, without a word of why."""
        if not self._bell.done():
            self._bell.set_result(None)

    async def sleep(self, seconds: float, gone: "asyncio.Future[None] | None") -> bool:
        """Whether it was woken, and not given up by its client or its time."""
        awaited = {self._bell} if gone is None else {self._bell, gone}
        await asyncio.wait(awaited, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        woken = self._bell.done()
        if woken:
            self._bell = asyncio.get_running_loop().create_future()
        return woken and not (gone is not None and gone.done())


class Wakeups:
    """All sleepers of this process."""

    def __init__(self) -> None:
        self.delayed = asyncio.Event()
        """A job was queued for later: the promoter looks when the next one is due."""
        self.missed = asyncio.Event()
        """Something happened of which nobody can say how many it concerns: the lookout looks."""
        self.tell_others: Callable[[Mapping[str, int], Collection[JobId]], None] = _nobody
        self.closing = False
        # In the order of their arrival; who was woken is not here until it tries again.
        self._idle: dict[str, dict[Sleeper, None]] = {}
        self._watching: dict[JobId, set[Sleeper]] = {}

    def announce(self, steps: Sequence[Step]) -> None:
        """These changes were committed."""
        if any(step.delayed_to for step in steps):
            self.delayed.set()
        self.became_claimable(_claimable(steps))
        finished = [step.job_id for step in steps if step.to_status in FINAL]
        if finished:
            self.finished(finished)
            self.tell_others({}, finished)

    def became_claimable(self, jobs: Mapping[str, int]) -> None:
        """So many jobs, by queue. The others are told of those for which nobody waits here."""
        left = self.work(jobs)
        if left:
            self.tell_others(left, ())

    def work(self, jobs: Mapping[str, int]) -> Mapping[str, int]:
        """There may be so many jobs in each of these queues. For how many of them nobody waits."""
        left: dict[str, int] = {}
        for queue, number in jobs.items():
            for woken in range(number):
                sleeper = next(iter(self._idle.get(queue, ())), None)
                if sleeper is None:
                    left[queue] = number - woken
                    break
                self._busy(sleeper)
                sleeper.wake(queue)
        return left

    def finished(self, jobs: Iterable[JobId]) -> None:
        """These jobs came to their end."""
        for job_id in jobs:
            for sleeper in self._watching.get(job_id, ()):
                sleeper.wake()

    @contextmanager
    def waiting_for_work(self, queues: Sequence[str]) -> Generator[Sleeper]:
        """A place in line at these queues. `ready` is to be called before each try."""
        sleeper = Sleeper(queues)
        try:
            yield sleeper
        finally:
            self._busy(sleeper)
            if sleeper.woken_for is not None:
                self.work({sleeper.woken_for: 1})

    def ready(self, sleeper: Sleeper) -> str | None:
        """It tries now, and may be woken again from here on. What it was woken for."""
        woken_for, sleeper.woken_for = sleeper.woken_for, None
        for queue in sleeper.queues:
            self._idle.setdefault(queue, {})[sleeper] = None
        return woken_for

    @contextmanager
    def watching(self, job_id: JobId) -> Generator[Sleeper]:
        """Woken when this job comes to its end."""
        sleeper = Sleeper()
        self._watching.setdefault(job_id, set()).add(sleeper)
        try:
            yield sleeper
        finally:
            sleepers = self._watching[job_id]
            sleepers.discard(sleeper)
            if not sleepers:
                del self._watching[job_id]

    def awaited_queues(self) -> Mapping[str, int]:
        """How many sleep at each queue."""
        return {queue: len(sleepers) for queue, sleepers in self._idle.items()}

    def awaited_jobs(self) -> Collection[JobId]:
        """Whose end somebody awaits."""
        return list(self._watching)

    def close(self) -> None:
        """Wake all: nobody waits any more."""
        self.closing = True
        for sleeper in {it for sleepers in self._idle.values() for it in sleepers}:
            sleeper.wake()
        for sleeper in {it for sleepers in self._watching.values() for it in sleepers}:
            sleeper.wake()

    def _busy(self, sleeper: Sleeper) -> None:
        for queue in sleeper.queues:
            sleepers = self._idle.get(queue, {})
            sleepers.pop(sleeper, None)
            if not sleepers:
                self._idle.pop(queue, None)


def _nobody(_work: Mapping[str, int], _finished: Collection[JobId]) -> None:
    """There are no other replicas."""


def _claimable(steps: Iterable[Step]) -> Mapping[str, int]:
    ready: Counter[str] = Counter()
    for step in steps:
        if step.to_status is Status.QUEUED and not step.delayed_to:
            ready[step.queue] += 1
        elif step.from_status is Status.QUEUED:
            ready[step.queue] -= 1  # a claim in the same transaction
    return ready
