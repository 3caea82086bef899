"""A job that was made, held by who wants its result."""

import asyncio
import math
from typing import TYPE_CHECKING

from compute_orchestrator.client.errors import ClientError, JobCancelled, JobFailed, ResultTimeout
from compute_orchestrator.client.models import Event, Job, Json, Status
from compute_orchestrator.client.retries import ONE_TRY, Backoff, is_passing

if TYPE_CHECKING:
    from compute_orchestrator.client.client import OrchestratorClient

LONGEST_POLL_SECONDS = 20.0

# After an answer that came before its time: the server stops, or has too many who wait.
FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 5.0

# An answer that is due when the time is over is on its way then.
LATE_SECONDS = 1.0


class JobHandle:
    """What `submit()` gives. For a job of before: `JobHandle(client, await client.get(7))`."""

    def __init__(self, client: "OrchestratorClient", job: Job) -> None:
        self.job = job
        """As it was last seen."""
        self._client = client

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id} {self.job.name}: {self.job.status}>"

    @property
    def id(self) -> int:
        return self.job.id

    async def refresh(self) -> Job:
        """The job as it stands now."""
        self.job = await self._client.get(self.id)
        return self.job

    async def cancel(self, *, force: bool = False) -> Job:
        """Cancel it while it waits; a running one is marked, or with `force` ended at once."""
        self.job = await self._client.cancel(self.id, force=force)
        return self.job

    async def events(self) -> list[Event]:
        """Its whole audit trail, oldest first."""
        return await self._client.events(self.id)

    async def result(self, timeout_seconds: float | None = None) -> Json:
        """What its worker returned. Raises JobFailed, JobCancelled, and what `wait` raises."""
        job = await self.wait(timeout_seconds)
        match job.status:
            case Status.SUCCEEDED:
                return job.result
            case Status.CANCELLED:
                raise JobCancelled(job)
            case _:
                raise JobFailed(job)

    async def wait(self, timeout_seconds: float | None = None) -> Job:
        """The job once it is final, whichever way.

        With a timeout the server may be away meanwhile, and ResultTimeout is raised when the time
        is over, at most a second late. Without one it waits as long as it takes, but for a server
        that is away only as long as the client's patience is.
        """
        if self.job.is_final:
            return self.job
        if timeout_seconds is None:
            await self._watch(math.inf)
            return self.job
        over = asyncio.get_running_loop().time() + timeout_seconds
        try:
            async with asyncio.timeout_at(over + LATE_SECONDS):
                await self._watch(over)
        except (TimeoutError, ClientError) as error:
            if isinstance(error, ClientError) and not is_passing(error):
                raise
            raise ResultTimeout(self.job, timeout_seconds) from error
        if not self.job.is_final:
            raise ResultTimeout(self.job, timeout_seconds)
        return self.job

    async def _watch(self, over: float) -> None:
        """Look until the job is final or the time is over; the last look is after that."""
        loop = asyncio.get_running_loop()
        backoff = Backoff(FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS)
        patience = None if over == math.inf else ONE_TRY
        while True:
            asked = loop.time()
            wait = min(max(0.0, over - asked), LONGEST_POLL_SECONDS)
            is_last = wait == 0
            try:
                self.job = await self._client.get(self.id, wait_seconds=wait, patience=patience)
            except ClientError as error:
                if is_last or patience is None or not is_passing(error):
                    raise
                pause = backoff.wait_after(error)
            else:
                if is_last or self.job.is_final:
                    return
                if loop.time() - asked >= wait:
                    backoff.reset()
                    continue
                pause = backoff.wait()
            await asyncio.sleep(min(pause, over - loop.time()))
