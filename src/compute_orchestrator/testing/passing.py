"""Time goes by in a server under test: from one moment at which something is due to the next.

The server's own loops rest while time stands still; their steps are made from here. A worker that
works beside the test can't heartbeat in a time that jumps; for it that is done from here too.
"""

from collections.abc import AsyncIterator, Collection
from contextlib import suppress

from compute_orchestrator.domain.errors import OrchestratorError
from compute_orchestrator.domain.job import Job
from compute_orchestrator.domain.lease import Heartbeat, LeaseKey
from compute_orchestrator.domain.lifecycle import Status
from compute_orchestrator.domain.listing import JobFilter
from compute_orchestrator.domain.values import Micros, micros
from compute_orchestrator.routes.deps import Services
from compute_orchestrator.services.promoter import Promoter
from compute_orchestrator.testing.clock import StillClock

REAPER_INTERVAL_SECONDS = 3600.0
"""The longest that the settings allow: few steps make a day. What is due waits for no pass here."""
PAGE_JOBS = 500
UNFINISHED = JobFilter(statuses=(Status.QUEUED, Status.RUNNING))
RUNNING = JobFilter(statuses=(Status.RUNNING,))


class Passing:
    """To be used in the server's own loop. `living` are the workers whose leases are kept, but for
    that on the job `silent`.
    """

    def __init__(
        self,
        clock: StillClock,
        services: Services,
        promoter: Promoter,
        *,
        living: Collection[str],
        silent: int | None,
    ) -> None:
        self._clock = clock
        self._services = services
        self._promoter = promoter
        self._living = living
        self._silent = silent

    async def pass_time(self, span: int) -> None:
        """Let so many microseconds go by."""
        end = Micros(self._clock.now() + span)
        # Also before the first: the reaper takes only what ran out while it looked on.
        await self._do_what_is_due()
        while self._clock.now() < end:
            self._clock.move_to(min([end, *[moment async for moment in self._moments()]]))
            await self._do_what_is_due()

    async def _do_what_is_due(self) -> None:
        if self._living:
            await self._keep_leases()
        await self._services.reaper.reap_once()
        await self._promoter.promote_once()

    async def _keep_leases(self) -> None:
        """The heartbeats that came just in time."""
        async for job in self._all(RUNNING):
            worker_id, token = job.locked_by, job.lease_token
            if worker_id is None or token is None or job.id == self._silent:
                continue
            if worker_id in self._living and _end_of_lease(job) <= self._clock.now():
                with suppress(OrchestratorError):  # its report came first
                    beat = Heartbeat(LeaseKey(job.id, token), worker_id)
                    await self._services.heartbeats.beat(beat)

    async def _moments(self) -> AsyncIterator[Micros]:
        """When something becomes due; each is later than now."""
        now = self._clock.now()
        async for job in self._all(UNFINISHED):
            if job.delayed:
                yield job.run_at
            elif job.status is Status.RUNNING:
                # One that ran out unseen is taken once it was looked on for as long as it is.
                unseen = Micros(now + micros(job.held_seconds or 1))
                yield _end_of_lease(job) if _end_of_lease(job) > now else unseen
                yield Micros(now + micros(REAPER_INTERVAL_SECONDS))

    async def _all(self, wanted: JobFilter) -> AsyncIterator[Job]:
        cursor = None
        while True:
            page = await self._services.jobs.page(wanted, PAGE_JOBS, cursor)
            for job in page.jobs:
                yield job
            cursor = page.next_cursor
            if cursor is None:
                return


def _end_of_lease(job: Job) -> Micros:
    return job.lease_expires_at or Micros(0)
