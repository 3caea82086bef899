"""How one run of a task goes: on the loop or in a thread, inside its middleware, until it is told
to stop.
"""

import asyncio
import threading
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import anyio
import pytest

from compute_orchestrator.client import Cancelled, Context, Permanent
from compute_orchestrator.client.calling import CallNext, Execution, Middleware
from compute_orchestrator.client.outcomes import Ended, Raised, Returned, Stopped, describe
from compute_orchestrator.client.tasks import Task
from tests.client.test_tasks import context


def execution(
    function: Callable[..., Any], *middleware: Middleware, job: Context | None = None, **given: Any
) -> Execution:
    job = job or context(payload=given)
    task = Task.of("task", function)
    arguments = task.bind(job.payload, job)
    threads = anyio.CapacityLimiter(1)
    return Execution(task, arguments, job, threads=threads, middleware=middleware)


async def end_of(*given: Any, **arguments: Any) -> Ended:
    return await execution(*given, **arguments).run()


WHO: ContextVar[str] = ContextVar("who", default="nobody")


async def on_loop(width: int) -> tuple[int, bool, str]:
    return width, threading.current_thread() is threading.main_thread(), WHO.get()


def in_thread(width: int) -> tuple[int, bool, str]:
    return width, threading.current_thread() is threading.main_thread(), WHO.get()


async def test_async_functions_run_on_the_loop_and_plain_ones_in_threads() -> None:
    assert await end_of(on_loop, width=3) == Returned([3, True, "nobody"])
    assert await end_of(in_thread, width=3) == Returned([3, False, "nobody"])


@pytest.mark.parametrize("function", [on_loop, in_thread])
async def test_middleware_goes_around_a_task_the_first_outermost(
    function: Callable[..., Any],
) -> None:
    seen: list[Any] = []

    async def outer(job: Context, call_next: CallNext) -> object:
        seen.append(("outer", job.id))
        WHO.set("outer")
        return {"outer": await call_next()}

    async def inner(job: Context, call_next: CallNext) -> object:
        seen.append(("inner", job.id))
        result = await call_next()
        seen.append(result)
        return result

    result = [3, function is on_loop, "outer"]
    assert await end_of(function, outer, inner, width=3) == Returned({"outer": result})
    assert seen == [("outer", 7), ("inner", 7), result]


@pytest.mark.parametrize("is_async", [True, False])
async def test_middleware_sees_what_a_task_raises_and_may_raise_something_else(
    is_async: bool,
) -> None:
    def broken() -> None:
        raise KeyError("nobody")

    async def broken_too() -> None:
        broken()

    async def seeing(job: Context, call_next: CallNext) -> object:
        with pytest.raises(KeyError):
            return await call_next()
        raise Permanent(f"no such user, says {job.id}")

    ended = await end_of(broken_too if is_async else broken, seeing)
    assert isinstance(ended, Raised)
    assert isinstance(ended.error, Permanent)
    assert "orchestrator/client/calling.py" not in str(describe(ended.error)["traceback"])


async def test_a_task_on_the_loop_is_cancelled_and_has_time_to_clean_up() -> None:
    started = asyncio.Event()
    cleaned = asyncio.Event()

    async def task() -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.to_thread(bool)
            cleaned.set()

    running = asyncio.create_task(end_of(task))
    await started.wait()
    running.cancel()
    assert isinstance(await running, Stopped)
    assert cleaned.is_set()


async def test_a_thread_is_left_behind_and_told_that_its_work_counts_no_more() -> None:
    started, go_on, left = threading.Event(), threading.Event(), threading.Event()

    def task(job: Context) -> None:
        started.set()
        go_on.wait(20)
        try:
            job.check_cancelled()
        except Cancelled:
            left.set()

    run = execution(task)
    running = asyncio.create_task(run.run())
    await asyncio.to_thread(started.wait, 20)
    running.cancel()
    assert isinstance(await running, Stopped)
    assert run.is_stuck
    go_on.set()
    assert await asyncio.to_thread(left.wait, 20)


@pytest.mark.parametrize("is_async", [True, False])
async def test_a_task_that_obeys_a_cancel_has_stopped(is_async: bool) -> None:
    def obeying(job: Context) -> None:
        job.check_cancelled()
        job.cancel_requested = True  # by the worker, in truth
        job.check_cancelled()

    async def obeying_too(job: Context) -> None:
        obeying(job)

    ended = await end_of(obeying_too if is_async else obeying)
    assert isinstance(ended, Stopped)
    assert isinstance(ended.error, Cancelled)
