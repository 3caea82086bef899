"""The relay while its way to the other replicas is quiet, dead or not there."""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, cast

import pytest

from compute_orchestrator.domain.errors import StoreUnavailable
from compute_orchestrator.domain.values import JobId
from compute_orchestrator.services import relay
from compute_orchestrator.services.relay import LONGEST_MESSAGE_BYTES, LOOK, Relay
from compute_orchestrator.services.supervisor import Loop, Supervisor
from compute_orchestrator.services.wakeups import Wakeups

if TYPE_CHECKING:
    from compute_orchestrator.db.engine import Store

NOTHING = '{"work": {}, "finished": []}'


class Ways:
    """Each time a way is asked for, the next of these failures comes; then there is one."""

    def __init__(self, *failures: str) -> None:
        self.told: asyncio.Queue[str] = asyncio.Queue()
        self._failures = deque(failures)

    @asynccontextmanager
    async def channel(self, *_: Any) -> AsyncGenerator[Callable[[str], Awaitable[None]]]:
        if self._failures:
            raise StoreUnavailable(self._failures.popleft())
        yield self.told.put


def relay_on(ways: Ways) -> Relay:
    return Relay(cast("Store", ways), Wakeups())


@asynccontextmanager
async def running(relay: Relay) -> AsyncGenerator[None]:
    supervisor = Supervisor()
    supervisor.start(Loop("relay", relay.relay_once, relay.rest, retry_seconds=0))
    try:
        yield
    finally:
        await supervisor.stop()


async def told(ways: Ways) -> str:
    async with asyncio.timeout(10):
        return await ways.told.get()


async def test_who_has_nothing_to_tell_says_so_now_and_then_to_find_a_dead_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(relay, "QUIET_SECONDS", 0.01)
    ways = Ways()
    async with running(relay_on(ways)):
        assert [await told(ways) for _ in range(3)] == [NOTHING] * 3


async def test_what_is_not_told_for_long_is_forgotten_and_the_others_look_for_themselves() -> None:
    ways = Ways()
    it = relay_on(ways)
    for job_id in range(3 * LONGEST_MESSAGE_BYTES):
        it.tell({}, [JobId(job_id)])
    assert len(it._finished) == LONGEST_MESSAGE_BYTES  # pyright: ignore[reportPrivateUsage]
    async with running(it):
        assert await told(ways) == LOOK
        it.tell({"q": 1}, [])
        assert await told(ways) == '{"work": {"q": 1}, "finished": []}'


async def test_a_way_that_is_lost_is_told_once_and_so_is_its_return(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    ways = Ways("gone", "gone", "gone")
    it = relay_on(ways)
    async with running(it):
        it.tell({"q": 1}, [])
        await told(ways)
    assert caplog.messages == [
        "relay failed and goes on: gone",
        "the other replicas can be heard again",
    ]
