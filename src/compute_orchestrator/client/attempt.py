"""One run of one job: check its payload, run its task, and say what is to be reported of it."""

import asyncio
import logging
from collections.abc import Callable, Sequence

import anyio

from compute_orchestrator.client.calling import Execution, Middleware
from compute_orchestrator.client.context import Context, JobLog, Notes
from compute_orchestrator.client.keeper import Lease
from compute_orchestrator.client.models import ClaimedJob, RetryPolicy, Status
from compute_orchestrator.client.outcomes import (
    Ended,
    Permanent,
    Raised,
    Retry,
    Snooze,
    Stopped,
    in_short,
    report_of,
)
from compute_orchestrator.client.reports import Report
from compute_orchestrator.client.tasks import Task

# A newer worker, which knows the name, may take it meanwhile.
UNKNOWN_NAME_SECONDS = 10.0

# What an async task has to clean up once it is cancelled at shutdown.
CLEANUP_SECONDS = 1.0


class Attempt(Lease):
    """Lives from the claim until its report has a definite answer, or its lease is lost."""

    def __init__(
        self,
        job: ClaimedJob,
        task: Task | None,
        now: float,
        *,
        on_lost: "Callable[[Attempt], None]",
        on_cancel: "Callable[[Attempt], None]",
    ) -> None:
        """`on_cancel` is for one that does not run."""
        super().__init__(job, now)
        self.task = task
        self._on_lost = on_lost
        self._on_cancel = on_cancel
        self.since = now
        """When it was claimed; from `start()` on, when it was started."""
        self.report: Report | None = None
        """What is to be reported, once that is known."""
        self.was_sent = False
        """A report is, or was, on its way: it may have ended the lease."""
        self.is_last = False
        """It is on its way for the last time: the lease was known to be over."""
        self.reason = ""
        self._log: JobLog | None = None
        self._context: Context | None = None
        self._execution: Execution | None = None
        self._function: asyncio.Task[None] | None = None
        self._has_begun = False
        self._has_ended = False
        self._handed_back = False
        self._on_over: Callable[[Attempt], None] | None = None

    @property
    def log(self) -> JobLog:
        if self._log is None:
            self._log = JobLog(self.job)
        return self._log

    @property
    def is_stuck(self) -> bool:
        """Whether the task still runs although it was told to stop."""
        if self._execution is not None and self._execution.is_stuck:
            return True
        return self._function is not None and not self._has_ended

    # Without running it

    def release(self, reason: str, *, run_in_seconds: float | None = None) -> None:
        self.reason = reason
        self.report = Report.released(run_in_seconds=run_in_seconds)

    def obey(self) -> None:
        """A cancel was requested before it was started."""
        self.report = Report.cancelled()

    # Running it

    def start(
        self,
        notes: Notes,
        on_over: "Callable[[Attempt], None]",
        *,
        threads: anyio.CapacityLimiter,
        middleware: Sequence[Middleware] = (),
        state: object = None,
    ) -> None:
        """`on_over` is called once, when the task is over and `report` says what to report."""
        loop = asyncio.get_running_loop()
        self.since = loop.time()
        self._on_over = on_over
        self._context = Context(self.job, notes, self.log, state)
        self._function = loop.create_task(self._run(self._context, threads, middleware))

    def hand_back(self) -> None:
        """Stop the task and release the job, unless it has ended already."""
        self._handed_back = True
        self._stop()
        loop = asyncio.get_running_loop()
        loop.call_later(CLEANUP_SECONDS, self._over, None)

    def lose(self) -> None:
        super().lose()
        # While a report is under way, a lost lease may be what that report did.
        if self.was_sent:
            return
        self.log.warning("the lease is lost; what it still does counts no more")
        self._tell()
        self._on_lost(self)

    def cancel(self) -> None:
        if self._context is None:
            self._on_cancel(self)
        elif not self._context.cancel_requested:
            self.log.info("a cancel was requested")
            self._tell()

    def _tell(self) -> None:
        """That the work counts no more."""
        if self._context is not None:
            self._context.cancel_requested = True
        if self.task is not None and self.task.can_be_stopped:
            self._stop()

    def _stop(self) -> None:
        if self._function is None or self._function.done():
            return
        self._function.cancel()
        if not self._has_begun:  # then it never will: asyncio does not even enter it
            self._has_ended = True
            self._over(None)

    async def _run(
        self,
        context: Context,
        threads: anyio.CapacityLimiter,
        middleware: Sequence[Middleware],
    ) -> None:
        self._has_begun = True
        assert self.task is not None  # noqa: S101 - without one there is nothing to start
        ended: Ended | None = None
        try:
            try:
                arguments = self.task.bind(self.job.payload, context)
            except Exception as error:  # noqa: BLE001 - a user's validator may raise anything
                ended = Raised(error)
            else:
                self._execution = Execution(
                    self.task, arguments, context, threads=threads, middleware=middleware
                )
                try:
                    ended = await self._execution.run()
                except Exception as error:  # noqa: BLE001 - no thread or process could be started
                    ended = Raised(error)
        finally:
            self._has_ended = True
            self._over(ended)

    def _over(self, ended: Ended | None) -> None:
        """The first time counts: a task that does not stop is not waited for."""
        if self._on_over is None:
            return
        on_over, self._on_over = self._on_over, None
        self.report = self._conclude(ended)
        on_over(self)

    def _conclude(self, ended: Ended | None) -> Report | None:
        """None where there is nothing left to report."""
        if self.lost:
            return None
        match ended:
            case None:
                return self._given_back()
            case Stopped() if self._context is not None and self._context.cancel_requested:
                return Report.cancelled()
            case Stopped() if self._handed_back:
                return self._given_back()
            case Raised(error) if self._handed_back and not _is_chosen(error):
                # It broke because it was stopped; that must cost no retry.
                return self._given_back()
            case Raised(error) | Stopped(error) as ended:
                self.reason = in_short(error)
                self.log.debug("ended by", exc_info=error)
                return report_of(ended)
            case ended:
                return report_of(ended)

    def _given_back(self) -> Report:
        self.reason = "the worker stops"
        return Report.released()

    def tell_end(self, report: Report, stands: str) -> None:
        """The line of the log that says what the report made of the job."""
        is_trouble = report.status is Status.FAILED or self.task is None
        level = logging.WARNING if is_trouble else logging.INFO
        if self.log.isEnabledFor(level):
            reason = f": {self.reason}" if self.reason else ""
            self.log.log(level, "%s%s", became(self.job, report, stands), reason)


def became(job: ClaimedJob, report: Report, stands: str) -> str:
    """What the report made of the job, in words. `stands` is the status that was answered."""
    match report.status, stands:
        case Status.FAILED, Status.QUEUED:
            retry = f"retry {job.retry_count + 1} of {job.max_retries}"
            return f"failed, runs again in {_wait_of(job, report)} ({retry})"
        case Status.FAILED, Status.FAILED:
            return "failed for good"
        case Status.FAILED, Status.EXHAUSTED:
            return "failed, and its retries are used up"
        case Status.QUEUED, Status.QUEUED:
            wait = report.run_in_seconds
            return "handed back" + (f" for {wait:.1f} s" if wait else "")
        case _, Status.CANCELLED:
            return "cancelled, as was asked for"
        case said, stands:  # a report that was repeated: the job may have gone on since
            return str(said) if said == stands else f"reported as {said}, and is {stands} by now"


def _wait_of(job: ClaimedJob, report: Report) -> str:
    """The server's backoff, but for the jitter, which is its own."""
    if report.retry_in_seconds is not None:
        return f"{report.retry_in_seconds:.1f} s"
    policy = job.retry or RetryPolicy()
    try:
        wait = min(policy.base_seconds * policy.factor**job.retry_count, policy.max_seconds)
    except OverflowError:
        wait = policy.max_seconds
    return f"{'about ' if policy.jitter else ''}{wait:.1f} s"


def _is_chosen(error: BaseException) -> bool:
    """Whether the task said by this what shall become of the job."""
    return isinstance(error, Retry | Permanent | Snooze)
