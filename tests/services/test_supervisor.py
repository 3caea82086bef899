"""The supervisor: a step that fails is logged, counted and survived, and the end is quick."""

import asyncio

import pytest

from compute_orchestrator.services.supervisor import Loop, Supervisor


class Job:
    """A background job that tells when it made its steps, and fails in some."""

    def __init__(self, *fails_in: int, rest_fails_in: int = 0) -> None:
        self.steps = 0
        self.rests = 0
        self.fails_in = fails_in
        self.rest_fails_in = rest_fails_in
        self.enough = asyncio.Event()
        self.loop = Loop("job", self.step, self.rest, retry_seconds=0)

    async def step(self) -> None:
        self.steps += 1
        if self.steps in self.fails_in:
            raise RuntimeError(f"step {self.steps} fails")
        if self.steps == 6:
            self.enough.set()

    async def rest(self) -> None:
        self.rests += 1
        if self.rests == self.rest_fails_in:
            raise RuntimeError("the rest fails")
        if self.enough.is_set():
            await asyncio.Event().wait()


@pytest.mark.parametrize("fails_in", [(), (1,), (2, 3), (1, 2, 3, 4, 5)])
async def test_a_step_that_fails_is_counted_logged_and_survived(
    fails_in: tuple[int, ...], caplog: pytest.LogCaptureFixture
) -> None:
    supervisor, job = Supervisor(), Job(*fails_in)
    supervisor.start(job.loop)
    await job.enough.wait()
    await supervisor.stop()
    assert job.loop.failures == len(fails_in)
    assert len([line for line in caplog.records if "goes on" in line.message]) == len(fails_in)
    assert all(f"step {number} fails" in caplog.text for number in fails_in)


async def test_a_rest_that_fails_is_survived_too() -> None:
    supervisor, job = Supervisor(), Job(rest_fails_in=2)
    supervisor.start(job.loop)
    await job.enough.wait()
    await supervisor.stop()
    assert job.loop.failures == 1


async def test_a_loop_that_fails_does_not_disturb_the_others() -> None:
    supervisor, bad, good = Supervisor(), Job(*range(1, 6)), Job()
    supervisor.start(bad.loop)
    supervisor.start(good.loop)
    await asyncio.gather(bad.enough.wait(), good.enough.wait())
    await supervisor.stop()
    assert (bad.loop.failures, good.loop.failures) == (5, 0)


async def test_the_first_step_is_made_at_once_and_each_is_followed_by_a_rest() -> None:
    supervisor, job = Supervisor(), Job()
    supervisor.start(job.loop)
    await job.enough.wait()
    assert (job.steps, job.rests) in ((6, 5), (6, 6))
    await supervisor.stop()


async def test_stopping_ends_a_loop_in_its_step_and_in_its_rest() -> None:
    entered = asyncio.Queue[str]()

    async def wait_for_ever() -> None:
        entered.put_nowait("in")
        await asyncio.Event().wait()

    async def nothing() -> None: ...

    supervisor = Supervisor()
    supervisor.start(Loop("in its step", wait_for_ever, nothing))
    supervisor.start(Loop("in its rest", nothing, wait_for_ever))
    await entered.get()
    await entered.get()
    await supervisor.stop()
    assert {task.get_name() for task in asyncio.all_tasks()} & {
        "in its step",
        "in its rest",
    } == set()
