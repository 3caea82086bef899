"""One run of a task's function: on the loop, in a thread or in a process, inside its middleware."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread

from compute_orchestrator.client.context import Context
from compute_orchestrator.client.models import Json
from compute_orchestrator.client.outcomes import (
    Ended,
    Raised,
    Returned,
    Stopped,
    as_json,
    end_of,
    end_of_plain,
)
from compute_orchestrator.client.tasks import Task

if TYPE_CHECKING:
    from compute_orchestrator.client.processes import Processes

CallNext = Callable[[], Awaitable[object]]
Middleware = Callable[[Context, CallNext], Awaitable[object]]


class Execution:
    """`run()` is cancelled to stop it: an async function is cancelled in turn and has the time it
    takes to clean up, a thread is left behind (it can't be stopped), a process is killed.
    """

    def __init__(
        self,
        task: Task,
        arguments: Mapping[str, object],
        context: Context,
        *,
        threads: anyio.CapacityLimiter,
        middleware: Sequence[Middleware] = (),
    ) -> None:
        self._task = task
        self._arguments = arguments
        self._context = context
        self._threads = threads
        self._middleware = middleware
        self._in_thread = False
        self._passed: Raised | None = None
        """What the task raised: its middleware may have let it pass."""

    @property
    def is_stuck(self) -> bool:
        """Whether a thread still runs the function; after `run()` is over it was left behind."""
        return self._in_thread

    async def run(self) -> Ended:
        """How it ended; `Stopped` where it was cancelled, or obeyed a cancel by `Cancelled`."""
        if not self._middleware:
            return await self._end()
        call: CallNext = self._result
        for outer in reversed(self._middleware):
            call = partial(outer, self._context, call)
        ended = await end_of(call, as_json)
        if self._passed is not None and ended == Raised(self._passed.error):
            return self._passed  # with what was told of it in its process
        return ended

    async def _result(self) -> Json:
        """For middleware: the result as JSON, or what was raised."""
        ended = await self._end()
        if isinstance(ended, Returned):
            return ended.result
        if isinstance(ended, Raised):
            self._passed = ended
        raise ended.error

    async def _end(self) -> Ended:
        if self._task.is_async:
            call = partial(self._task.function, **self._arguments)
            return await end_of(call, self._task.plain)
        if self._task.processes is not None:
            return await self._end_in_process(self._task.processes)
        return await self._end_in_thread()

    async def _end_in_thread(self) -> Ended:
        try:
            return await anyio.to_thread.run_sync(
                self._call_in_thread, abandon_on_cancel=True, limiter=self._threads
            )
        except asyncio.CancelledError as error:
            self._context.was_left = True
            return Stopped(error)

    def _call_in_thread(self) -> Ended:
        self._in_thread = True
        try:
            call = partial(self._task.function, **self._arguments)
            return end_of_plain(call, self._task.plain)
        finally:
            self._in_thread = False

    async def _end_in_process(self, processes: "Processes") -> Ended:
        run = processes.run_of(self._task, self._context)
        try:
            return await anyio.to_thread.run_sync(
                run.drive, abandon_on_cancel=True, limiter=self._threads
            )
        except asyncio.CancelledError as error:
            run.kill()
            return Stopped(error)
