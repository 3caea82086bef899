"""What a worker has around its tasks, lifespan and middleware, and what it says of itself."""

import asyncio
import os
import socket
import threading
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from importlib.metadata import version
from types import SimpleNamespace
from typing import Any

import pytest

from compute_orchestrator.client import CallNext, Context, OrchestratorClient, Worker
from compute_orchestrator.client.about import code_of
from compute_orchestrator.client.models import Status
from compute_orchestrator.client.tasks import Task
from tests.client.wires import Wire, working
from tests.conftest import URL


async def test_a_lifespan_is_around_all_work_and_gives_tasks_their_state(
    client: OrchestratorClient, wire: Wire
) -> None:
    seen: list[object] = []

    @asynccontextmanager
    async def lifespan(app: Worker) -> AsyncGenerator[SimpleNamespace]:
        seen.append(app.worker_id)
        yield SimpleNamespace(pool="open")
        seen.append("closed")

    app = Worker(URL, worker_id="w", lifespan=lifespan, transport=wire)

    @app.task("task")
    async def task(job: Context) -> str:
        seen.append("done")
        return job.state.pool

    handle = await client.submit("task")
    async with working(app):
        assert await handle.result(20) == "open"
    assert seen == ["w", "done", "closed"]


async def test_a_worker_that_is_stopped_while_it_starts_does_not_work(
    client: OrchestratorClient, wire: Wire
) -> None:
    starting, go_on = asyncio.Event(), asyncio.Event()

    @asynccontextmanager
    async def lifespan(_: Worker) -> AsyncGenerator[None]:
        starting.set()
        await go_on.wait()
        yield

    app = Worker(URL, lifespan=lifespan, transport=wire)
    app.task("task")(_nothing)
    handle = await client.submit("task")
    serving = asyncio.create_task(app.serve())
    await starting.wait()
    app.stop()
    asyncio.get_running_loop().call_soon(go_on.set)
    async with asyncio.timeout(20):
        await serving
    assert (await handle.refresh()).status == Status.QUEUED


async def test_a_lifespan_that_breaks_ends_the_worker_and_it_can_start_again(
    client: OrchestratorClient, wire: Wire
) -> None:
    broken = [RuntimeError("no database")]

    @asynccontextmanager
    async def lifespan(_: Worker) -> AsyncGenerator[None]:
        if broken:
            raise broken.pop()
        yield

    app = Worker(URL, lifespan=lifespan, transport=wire)
    app.task("task")(_nothing)
    with pytest.raises(RuntimeError, match="no database"):
        await app.serve()
    handle = await client.submit("task")
    async with working(app):
        await handle.result(20)


async def test_middleware_is_around_every_task(client: OrchestratorClient, wire: Wire) -> None:
    app = Worker(URL, transport=wire)
    seen: list[object] = []

    @app.middleware
    async def noting(job: Context, call_next: CallNext) -> object:
        try:
            return {"result": await call_next(), "of": job.name}
        finally:
            seen.append(job.id)

    @app.task("on-loop")
    async def on_loop() -> int:
        return 1

    @app.task("in-thread")
    def in_thread() -> int:
        return 2

    assert noting is not None
    made = [await client.submit(name) for name in ("on-loop", "in-thread")]
    async with working(app):
        results = [await handle.result(20) for handle in made]
    assert results == [{"result": 1, "of": "on-loop"}, {"result": 2, "of": "in-thread"}]
    assert seen == [handle.id for handle in made]


async def test_a_plain_task_obeys_a_cancel_by_looking_for_it(
    client: OrchestratorClient, wire: Wire
) -> None:
    app = Worker(URL, lease_seconds=1, transport=wire)
    started = asyncio.Event()
    loop = asyncio.get_running_loop()

    @app.task("task")
    def task(job: Context) -> None:
        loop.call_soon_threadsafe(started.set)
        while True:
            job.check_cancelled()
            threading.Event().wait(0.02)

    handle = await client.submit("task")
    async with working(app):
        await asyncio.wait_for(started.wait(), 20)
        await handle.cancel()
        assert (await handle.wait(20)).status == Status.CANCELLED
    assert (await handle.events())[-1].action == "obey"


async def test_a_worker_may_work_until_nothing_is_left(
    client: OrchestratorClient, wire: Wire
) -> None:
    app = Worker(URL, concurrency=2, transport=wire)

    @app.task("task")
    async def task(then: int) -> None:
        if then:
            await task.submit(then - 1)

    await task.using(queue="elsewhere").submit(0)
    await task.submit(3)
    await task.using(run_in_seconds=3600).submit(0)
    async with asyncio.timeout(20):
        await app.drain()
    stats = await client.stats()
    assert stats.totals.succeeded == 4
    assert stats.queues["default"].delayed == 1
    assert stats.queues["elsewhere"].queued == 1
    await app.aclose()


async def test_what_a_worker_is_can_be_seen_at_the_server(
    client: OrchestratorClient, wire: Wire
) -> None:
    app = Worker(URL, worker_id="w", code="1.2.3", transport=wire)

    @app.task("task")
    async def task() -> None:
        """Nothing to do."""

    handle = await task.submit()
    async with working(app):
        await handle.wait(20)
        (seen,) = await client.workers()
    assert seen.about == {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "sdk": f"compute-orchestrator/{version('compute-orchestrator')}",
        "code": "1.2.3",
    }


def test_the_code_of_a_worker_changes_with_the_source_of_its_tasks() -> None:
    def one() -> int:
        return 1

    def other() -> int:
        return 2

    tasks = [Task.of("one", one), Task.of("other", other)]
    assert code_of(tasks) == code_of(reversed(tasks))
    assert len({code_of(tasks), code_of(tasks[:1]), code_of([Task.of("one", other)])}) == 3
    assert len(code_of(tasks)) == 12


def test_tasks_without_a_source_to_be_read_have_a_code_too() -> None:
    typed: dict[str, Any] = {}
    exec("def one(): return 1\ndef other(): return 2", typed)  # noqa: S102 - as at a prompt
    one, other = Task.of("task", typed["one"]), Task.of("task", typed["other"])
    builtin = Task.of("task", os.getpid)
    assert len({code_of([task]) for task in (one, other, builtin)}) == 3


def test_the_server_is_the_one_that_is_named_or_orc_url_or_that_of_this_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("ORC_URL", raising=False)
    assert Worker().url == "http://127.0.0.1:8000"
    monkeypatch.setenv("ORC_URL", "http://jobs.example:9000")
    assert Worker().url == "http://jobs.example:9000"
    assert Worker(URL).url == URL
    monkeypatch.setenv("ORC_URL", "jobs.example")
    with pytest.raises(ValueError, match="http://host:port"):
        Worker()


def _nothing() -> None:
    """A task."""
