"""One run of one job: check its payload, run its task, keep its lease, report what came of it."""

import asyncio
import logging
from functools import partial

import anyio
import anyio.to_thread

from compute_orchestrator.client.client import OrchestratorClient
from compute_orchestrator.client.context import Context, JobLog, Notes
from compute_orchestrator.client.errors import ClientError
from compute_orchestrator.client.keeper import Keeper
from compute_orchestrator.client.models import ClaimedJob, Job, Status
from compute_orchestrator.client.outcomes import (
    Ended,
    PayloadMismatch,
    Permanent,
    Raised,
    Retry,
    Snooze,
    Stopped,
    became,
    end_of,
    end_of_plain,
    in_short,
    report_of,
    second_best,
)
from compute_orchestrator.client.reports import Report
from compute_orchestrator.client.retries import DEFINITE, Backoff
from compute_orchestrator.client.tasks import Task

# A newer worker, which knows the name, may take it meanwhile.
UNKNOWN_NAME_SECONDS = 10.0

# What an async task has to clean up once it is cancelled at shutdown.
CLEANUP_SECONDS = 1.0

FIRST_REPEAT_SECONDS = 0.1
LONGEST_REPEAT_SECONDS = 5.0


class Attempt:
    """Lives from the claim until the report has a definite answer."""

    def __init__(
        self,
        client: OrchestratorClient,
        job: ClaimedJob,
        task: Task | None,
        *,
        threads: anyio.CapacityLimiter,
    ) -> None:
        self.job = job
        self.log = JobLog(job)
        self._client = client
        self._task = task
        self._threads = threads
        notes = Notes()
        self._context = Context(job, notes, self.log)
        self._keeper = Keeper(
            client, job, notes, on_lost=self._lose, on_cancel=self._cancel, log=self.log
        )
        self._function: asyncio.Task[None] | None = None
        self._ended: Ended | None = None
        self._reason = ""
        self._in_thread = False
        self._reporting = False
        self._handed_back = asyncio.Event()

    @property
    def is_stuck(self) -> bool:
        """Whether the task still runs although it was told to stop."""
        return self._in_thread or (self._function is not None and not self._function.done())

    def hand_back(self) -> None:
        """Stop the task and release the job, unless it has ended already."""
        self._handed_back.set()

    async def run(self) -> None:
        keeping = asyncio.create_task(self._keeper.run())
        try:
            report = await self._work()
            if report is not None:
                await self._deliver(report)
        finally:
            keeping.cancel()
            await asyncio.wait({keeping})

    async def _work(self) -> Report | None:
        """Run the task. None where there is nothing left to report."""
        if self._handed_back.is_set():
            return self._release()
        if self._task is None:
            self._reason = "there is no task of this name here"
            return Report.released(run_in_seconds=UNKNOWN_NAME_SECONDS)
        try:
            arguments = self._task.bind(self.job.payload, self._context)
        except PayloadMismatch as mismatch:
            self._ended = Raised(mismatch)
        else:
            self._function = asyncio.create_task(self._call(self._task, arguments))
            await self._until_over(self._function)
        return self._conclude()

    async def _call(self, task: Task, arguments: dict[str, object]) -> None:
        call = partial(task.function, **arguments)
        if task.is_async:
            self._ended = await end_of(call)
        else:
            await anyio.to_thread.run_sync(
                self._call_in_thread, call, abandon_on_cancel=True, limiter=self._threads
            )

    def _call_in_thread(self, call: "partial[object]") -> None:
        self._in_thread = True
        try:
            self._ended = end_of_plain(call)
        finally:
            self._in_thread = False

    async def _until_over(self, function: "asyncio.Task[None]") -> None:
        """Until the task ends, or is handed back and had its time to clean up."""
        handed_back = asyncio.create_task(self._handed_back.wait())
        try:
            await asyncio.wait({function, handed_back}, return_when=asyncio.FIRST_COMPLETED)
            if not function.done():
                function.cancel()  # a thread is left behind: it can't be stopped
                await asyncio.wait({function}, timeout=CLEANUP_SECONDS)
        finally:
            handed_back.cancel()

    def _conclude(self) -> Report | None:
        if self._keeper.lost:
            return None
        match self._ended:
            case None:
                return self._release()
            case Stopped() if self._context.cancel_requested:
                return Report.cancelled()
            case Stopped() if self._handed_back.is_set():
                return self._release()
            case Raised(error) if self._handed_back.is_set() and not _is_chosen(error):
                # It broke because it was stopped; that must cost no retry.
                return self._release()
            case Raised(error) | Stopped(error) as ended:
                self._reason = in_short(error)
                self.log.debug("ended by", exc_info=error)
                return report_of(ended)
            case ended:
                return report_of(ended)

    def _release(self) -> Report:
        self._reason = "the worker stops"
        return Report.released()

    def _log_end(self, report: Report, job: Job) -> None:
        is_trouble = report.status is Status.FAILED or self._task is None
        level = logging.WARNING if is_trouble else logging.INFO
        reason = f": {self._reason}" if self._reason else ""
        self.log.log(level, "%s%s", became(report, job), reason)

    async def _deliver(self, report: Report) -> None:
        """Repeat the report until it has a definite answer.

        Once the lease is known to be over it is sent one last time: it may be what ended it.
        """
        if report.status is not Status.SUCCEEDED:
            await self._keeper.flush()
        if self._keeper.lost:
            return
        self._reporting = True
        pause = Backoff(FIRST_REPEAT_SECONDS, LONGEST_REPEAT_SECONDS)
        while True:
            is_last = self._keeper.lost
            try:
                job = await self._client.report(self.job, report)
            except DEFINITE as error:
                instead = second_best(report, error)
                if instead is None:
                    self.log.warning("the report (%s) was refused: %s", report.status, error)
                    return
                self.log.warning("reported in another way, since: %s", error)
                report = instead
            except ClientError as error:
                if is_last:
                    self.log.warning("whether the report was taken is not known: %s", error)
                    return
                wait = pause.wait_after(error)
                self.log.warning("not reported yet, again in %.1f s: %s", wait, error)
                await asyncio.sleep(wait)
            else:
                self._log_end(report, job)
                return

    def _lose(self) -> None:
        # While a report is under way, a lost lease may be what that report did.
        if self._reporting:
            return
        self.log.warning("the lease is lost; what it still does counts no more")
        self._stop()

    def _cancel(self) -> None:
        if not self._context.cancel_requested:
            self.log.info("a cancel was requested")
            self._stop()

    def _stop(self) -> None:
        self._context.cancel_requested = True
        if self._function is not None and self._task is not None and self._task.is_async:
            self._function.cancel()


def _is_chosen(error: BaseException) -> bool:
    """Whether the task said by this what shall become of the job."""
    return isinstance(error, Retry | Permanent | Snooze)
