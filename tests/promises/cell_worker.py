"""Workers or producers of a cell (`cells.py`): one process for many of them, that may be killed.

    python -m tests.promises.cell_worker PLAN

Each has a connection of its own and writes down its calls (`history.py`). A call that gets no
answer, or 503, is repeated at the other server until it is answered, sooner than `Retry-After` asks
for. SIGTERM ends the process once all that it has begun is answered.

The standard library alone: it starts in a tenth of a second.
"""

import asyncio
import json
import random
import signal
import sys
import time
from asyncio import StreamReader, StreamWriter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from itertools import count, cycle
from pathlib import Path
from typing import Any, NamedTuple

from tests.promises.history import Ask, Recorder, claim, create, heartbeat, report

Job = dict[str, Any]

PATIENCE_SECONDS = 10
NEXT_TRY_SECONDS = 0.3

LEASE_SECONDS = 2
BEATS_PER_LEASE = 4
LONG_JOBS = 0.01
"""The part of the jobs that takes longer than a lease; the others take no time."""
LOCAL = "127.0.0.1"
MISSED_SECONDS = 1
"""A producer that was held up makes up for the turns of this time, and for no more."""
LOOK_SECONDS = 0.1
QUEUES = Ask("queues", "GET", "/queues", {})

stopping = asyncio.Event()


class Plan(NamedTuple):
    """Of a process. Producers have a `rate` or a `depth`, workers neither."""

    name: str
    folder: str
    ports: list[int]
    size: int
    """How many work or produce in it."""
    rate: float = 0
    """Jobs a second, of all together."""
    depth: int = 0
    """Jobs that wait: those that are missing are created as fast as it goes."""
    most: int = sys.maxsize
    """Jobs in all."""


class Answer(NamedTuple):
    status: int
    body: Any


async def pause(seconds: float) -> None:
    """Work, or wait. Goes on by itself."""
    with suppress(TimeoutError):
        async with asyncio.timeout(max(seconds, 0)):
            await asyncio.Event().wait()


class Caller:
    """Sends a call to one server after the other until it is answered."""

    def __init__(self, name: str, plan: Plan, number: int) -> None:
        self.name = name
        self._recorder = Recorder(Path(plan.folder), name)
        first = number % len(plan.ports)
        self._ports = cycle(plan.ports[first:] + plan.ports[:first])
        self._port = next(self._ports)
        self._connection: tuple[StreamReader, StreamWriter] | None = None

    async def ask(self, ask: Ask) -> Answer:
        while True:
            answer = await self._try(ask)
            if answer is not None and answer.status != 503:
                return answer
            self._close()
            self._port = next(self._ports)
            await pause(NEXT_TRY_SECONDS * random.random())  # noqa: S311

    async def _try(self, ask: Ask) -> Answer | None:
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                if self._connection is None:
                    self._connection = await asyncio.open_connection(LOCAL, self._port)
                reader, writer = self._connection
                number = self._recorder.sent(ask)
                writer.write(in_bytes(ask))
                answer = await read_answer(reader)
        except (OSError, EOFError, TimeoutError):  # a torn answer is none
            self._close()
            return None
        self._recorder.answered(number, *answer)
        return answer

    def _close(self) -> None:
        if self._connection is not None:
            self._connection[1].close()
            self._connection = None


def in_bytes(ask: Ask) -> bytes:
    body = json.dumps(ask.body).encode() if ask.body else b""
    lines = [f"{ask.method} {ask.path} HTTP/1.1", f"Host: {LOCAL}", f"Content-Length: {len(body)}"]
    if body:
        lines.append("Content-Type: application/json")
    if ask.key is not None:
        lines.append(f"Idempotency-Key: {ask.key}")
    return "\r\n".join([*lines, "", ""]).encode() + body


async def read_answer(reader: StreamReader) -> Answer:
    """A refusal's body is given its Retry-After, which belongs to it."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    first, *lines = head.split("\r\n")
    status = int(first.split()[1])
    headers = {name.lower(): value for name, _, value in (it.partition(": ") for it in lines)}
    content = await reader.readexactly(int(headers.get("content-length", 0)))
    body: Any = json.loads(content) if content else None
    if status == 503:
        body["retry_after"] = headers.get("retry-after")
    return Answer(status, body)


class Pace:
    """Turns at a rate."""

    def __init__(self, rate: float) -> None:
        self._spacing = 1 / rate
        self._next = time.monotonic()

    async def turn(self) -> None:
        now = time.monotonic()
        self._next = max(self._next + self._spacing, now - MISSED_SECONDS)
        if self._next > now:
            await pause(self._next - now)


class Depth:
    """Turns while fewer than so many jobs wait."""

    def __init__(self, plan: Plan) -> None:
        self._port = plan.ports[0]
        self._depth = plan.depth
        self._missing = 0
        self._more = asyncio.Condition()

    async def turn(self) -> None:
        async with self._more:
            await self._more.wait_for(lambda: self._missing > 0 or stopping.is_set())
            self._missing -= 1

    async def look(self) -> None:
        """Again and again how many are missing."""
        reader, writer = await asyncio.open_connection(LOCAL, self._port)
        while not stopping.is_set():
            writer.write(in_bytes(QUEUES))
            answer = await read_answer(reader)
            queued = sum(queue["queued"] for queue in answer.body["queues"])
            async with self._more:
                self._missing = self._depth - queued
                self._more.notify_all()
            await pause(LOOK_SECONDS)
        writer.close()
        async with self._more:
            self._more.notify_all()


async def produce(
    caller: Caller, turn: Callable[[], Awaitable[None]], numbers: Iterator[int]
) -> None:
    while not stopping.is_set():
        await turn()
        number = next(numbers, None)
        if number is None:
            return
        key = f"{caller.name}/{number}"
        await caller.ask(create(key, max_retries=1000, retry={"base_seconds": 0.1}))


async def work(caller: Caller) -> None:
    for number in count():
        if stopping.is_set():
            return
        asked = claim(caller.name, f"{caller.name}/{number}", LEASE_SECONDS, wait_seconds=1)
        answer = await caller.ask(asked)
        if answer.status == 200:
            await run(caller, answer.body)


async def run(caller: Caller, job: Job) -> None:
    """Given up when a heartbeat is told that the lease is lost."""
    if random.random() < LONG_JOBS:  # noqa: S311
        for number in range(BEATS_PER_LEASE + 2):
            await pause(LEASE_SECONDS / BEATS_PER_LEASE)
            beat = heartbeat(job, f"{caller.name}, attempt {job['attempt']}, beat {number}")
            if (await caller.ask(beat)).status != 200:
                return
    await caller.ask(report(job, "succeeded", result=f"{caller.name}, attempt {job['attempt']}"))


async def all_of(plan: Plan) -> None:
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    callers = [Caller(f"{plan.name}-{number}", plan, number) for number in range(plan.size)]
    async with asyncio.TaskGroup() as group:
        if plan.rate:
            turn = Pace(plan.rate).turn
        elif plan.depth:
            depth = Depth(plan)
            group.create_task(depth.look())
            turn = depth.turn
        else:
            turn = None
        numbers = iter(range(plan.most))
        for caller in callers:
            group.create_task(produce(caller, turn, numbers) if turn else work(caller))


if __name__ == "__main__":
    asyncio.run(all_of(Plan(**json.loads(sys.argv[1]))))
