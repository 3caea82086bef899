"""What `@app.task` gives: the function as it was, and jobs made of it."""

import asyncio
import pickle
from datetime import date

import pytest
from pydantic import BaseModel, HttpUrl

from compute_orchestrator.client import Context, NewJob, OrchestratorClient, Worker
from compute_orchestrator.client.models import Status
from tests.client import hard_tasks
from tests.client.wires import LOCAL, Wire, working
from tests.conftest import URL


class Order(BaseModel):
    day: date
    size: int = 1


images = Worker(URL, queues=["images", "more"])


@images.task("resize", max_retries=5, timeout_seconds=60, tags=["a"])
async def resize(job: Context, url: HttpUrl, width: int, order: Order | None = None) -> str:
    """Make it smaller."""
    return f"{job.id}: {url}, {width}, {order}"


@images.task("add", queue="more")
def add(one: int, other: int = 2, **more: int) -> int:
    return one + other + sum(more.values())


def test_a_task_is_called_like_the_function_that_it_is() -> None:
    assert add(1, 2, third=3) == 6
    assert (resize.__name__, resize.__doc__) == ("resize", "Make it smaller.")


def test_a_job_carries_the_arguments_and_the_options_of_its_task() -> None:
    job = resize.job(HttpUrl("https://a.b/c"), order=Order(day=date(2026, 11, 23)), width=3)
    assert job == NewJob(
        "resize",
        {"url": "https://a.b/c", "width": 3, "order": {"day": "2026-11-23", "size": 1}},
        queue="images",
        max_retries=5,
        timeout_seconds=60,
        tags=["a"],
    )
    assert add.job(1, third=3) == NewJob("add", {"one": 1, "third": 3}, queue="more")


def test_a_job_may_have_options_of_its_own() -> None:
    job = resize.using(max_retries=0, run_in_seconds=60).job(HttpUrl("https://a.b/c"), 3)
    assert job.options.get("max_retries") == 0
    assert job.options.get("run_in_seconds") == 60
    assert job.options.get("timeout_seconds") == 60
    assert resize.options.get("max_retries") == 5


def test_arguments_that_do_not_fit_make_no_job() -> None:
    with pytest.raises(TypeError, match="width"):
        resize.job(HttpUrl("https://a.b/c"))  # pyright: ignore[reportCallIssue] - that is the point
    with pytest.raises(
        ValueError, match=r"task 'add': one: Input should be a valid integer.*; x: "
    ):
        add.job("one", x="y")  # pyright: ignore[reportArgumentType] - that is the point


def test_a_task_travels_by_its_name() -> None:
    assert pickle.loads(pickle.dumps(hard_tasks.square)) is hard_tasks.square  # noqa: S301 - ours


def test_a_task_may_have_two_names() -> None:
    app = Worker(URL)
    both = app.task("new")(app.task("old")(add))
    assert both(1) == 3
    assert (both.job(1).name, both.job(1).options.get("queue")) == ("new", "default")


async def test_a_submitted_task_is_run_and_its_result_awaited(wire: Wire) -> None:
    app = Worker(URL, transport=wire)

    @app.task("double", max_retries=0)
    async def double(number: int) -> int:
        return 2 * number

    @app.task("quadruple")
    async def quadruple(number: int) -> int:
        """Its own result waits for that of a job that it made."""
        return 2 * await (await double.submit(number)).result(timeout_seconds=20)

    app.concurrency = 2
    async with working(app):
        handle = await quadruple.submit(3)
        assert await handle.result(timeout_seconds=20) == 12


@pytest.mark.process
async def test_a_task_is_submitted_without_an_event_loop_too(server_port: int) -> None:
    app = Worker(f"http://{LOCAL}:{server_port}")

    @app.task("double", priority=7)
    def double(number: int) -> int:
        return 2 * number

    def in_a_thread() -> int:
        job = double.submit_blocking(3)
        app.close()
        return job.id

    number = await asyncio.to_thread(in_a_thread)
    async with OrchestratorClient(app.url) as client:
        job = await client.get(number)
    assert (job.status, job.payload, job.priority) == (Status.QUEUED, {"number": 3}, 7)
