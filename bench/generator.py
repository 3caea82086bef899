"""The load generator: a process of its own, one plan on stdin, one measurement on stdout.

Each keep-alive connection repeats a conversation, with one request under way at a time. Sockets
are driven by uvloop without an HTTP library, so that the server is what is measured; the bench
shows the generator's own ceiling beside every figure.
"""

import asyncio
import gc
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from itertools import cycle, islice
from typing import cast

import psutil
import uvloop

from bench.conversations import CONVERSATIONS, Ask, Conversation
from bench.measurement import Measurement, Plan, latency_of
from bench.wire import HOST, read_answer

# How long an answer may take after the end before it counts as missing.
DRAIN_SECONDS = 15


class Recorder:
    """Counts and latencies of all connections, kept while the window is open."""

    def __init__(self, plan: Plan) -> None:
        self.conversation = CONVERSATIONS[plan.conversation]
        self.left = plan.limit
        self._spacing = 1 / plan.rate if plan.rate else 0.0
        self._next_start = 0.0
        self.stopped = False
        self.recording = False
        self.conversations = 0
        self.latencies: dict[str, list[int]] = defaultdict(list)
        self.failures: Counter[str] = Counter()
        self.first_failure = ""
        self._servers = [psutil.Process(pid) for pid in plan.server_pids]
        self._start = self._end = (0.0, 0.0, 0.0)

    def open_window(self) -> None:
        self._start = self._clocks()
        self.recording = True

    def close_window(self) -> None:
        if self.recording:
            self.recording = False
            self._end = self._clocks()
        self.stopped = True

    def pause(self) -> float:
        """How long the next conversation has to wait for its turn. A turn that is late is not made
        up for: the rate is a bound.
        """
        now = time.monotonic()
        self._next_start = max(now, self._next_start + self._spacing)
        return self._next_start - now

    def next_conversation(self) -> Conversation | None:
        if self.stopped:
            return None
        if self.left is not None:
            if self.left == 0:
                return None
            self.left -= 1
        return self.conversation()

    def fail(self, what: str, body: bytes = b"") -> None:
        self.failures[what] += 1
        self.first_failure = self.first_failure or body[:500].decode(errors="replace")

    def measurement(self) -> Measurement:
        wall, server, own = (end - start for start, end in zip(self._start, self._end, strict=True))
        everything = [taken for step in self.latencies.values() for taken in step]
        if not everything:
            self.fail("no good answer inside the window")
        by_step = {"all": everything, **self.latencies}
        return Measurement(
            seconds=wall,
            requests=len(everything),
            conversations=self.conversations,
            latency={step: latency_of(taken) for step, taken in by_step.items() if taken},
            failures=dict(self.failures),
            first_failure=self.first_failure,
            server_cpu_seconds=server,
            generator_cpu_seconds=own,
        )

    def _clocks(self) -> tuple[float, float, float]:
        servers = sum(sum(server.cpu_times()[:2]) for server in self._servers)
        return time.perf_counter(), servers, time.process_time()


class Connection(asyncio.Protocol):
    """One socket: asks, waits for the whole answer, asks on."""

    _transport: asyncio.WriteTransport

    def __init__(self, recorder: Recorder, closed: Callable[[], None]) -> None:
        self._recorder = recorder
        self._closed = closed
        self._conversation: Conversation | None = None
        self._ask: Ask | None = None
        self._asked_at = 0
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.WriteTransport", transport)

    def start(self) -> None:
        pause = self._recorder.pause()
        if pause:
            asyncio.get_running_loop().call_later(pause, self._begin)
        else:
            self._begin()

    def _begin(self) -> None:
        self._conversation = self._recorder.next_conversation()
        if self._conversation is None:
            self._ask = None
            self._transport.close()
        else:
            self._send(next(self._conversation))

    def data_received(self, data: bytes) -> None:
        if self._received:
            data = self._received + data
        answer = read_answer(data)
        if answer is None:
            self._received = data
            return
        now = time.perf_counter_ns()
        self._received = b""
        self._take(answer[0], answer[1], now)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._ask is not None:
            self._recorder.fail(f"{self._ask.step}: connection closed", repr(exc).encode())
        self._closed()

    def _send(self, ask: Ask) -> None:
        self._ask = ask
        self._asked_at = time.perf_counter_ns()
        self._transport.write(ask.data)

    def _take(self, status: int, body: bytes, now: int) -> None:
        ask, conversation, recorder = self._ask, self._conversation, self._recorder
        if ask is None or conversation is None:
            recorder.fail("an answer nobody asked for", body)
            self._transport.close()
            return
        if status != ask.status:
            recorder.fail(f"{ask.step}: {status}", body)
            self.start()
            return
        if recorder.recording:
            recorder.latencies[ask.step].append(now - self._asked_at)
        try:
            following = conversation.send(body)
        except StopIteration:
            if recorder.recording:
                recorder.conversations += 1
            self.start()
        else:
            self._send(following)


async def measure(plan: Plan) -> Measurement:
    loop = asyncio.get_running_loop()
    recorder = Recorder(plan)
    all_closed = asyncio.Event()
    still_open = plan.connections

    def closed() -> None:
        nonlocal still_open
        still_open -= 1
        if still_open == 0:
            recorder.close_window()
            all_closed.set()

    # All are connected before the first one speaks.
    connections = [
        (await loop.create_connection(lambda: Connection(recorder, closed), HOST, port))[1]
        for port in islice(cycle(plan.ports), plan.connections)
    ]
    gc.freeze()
    gc.disable()
    if plan.warmup_seconds:
        loop.call_later(plan.warmup_seconds, recorder.open_window)
    else:
        recorder.open_window()
    for connection in connections:
        connection.start()
    loop.call_later(plan.warmup_seconds + plan.seconds, recorder.close_window)
    try:
        async with asyncio.timeout(plan.warmup_seconds + plan.seconds + DRAIN_SECONDS):
            await all_closed.wait()
    except TimeoutError:
        recorder.fail(f"{still_open} answers still missing {DRAIN_SECONDS} s after the end")
    return recorder.measurement()


if __name__ == "__main__":
    plan = Plan.model_validate_json(sys.stdin.read())
    sys.stdout.write(uvloop.run(measure(plan)).model_dump_json())
