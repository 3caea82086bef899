"""`pickup`: how long a new job takes to an idle worker that waits for it by long poll, from the
create's first byte to the last byte of the job. On PostgreSQL also from one replica to another.
"""

import asyncio
import json
import time
from contextlib import ExitStack

import psutil
import uvloop

from bench.databases import running_postgresql
from bench.measurement import Measurement, MeasurementFailed, latency_of
from bench.outcome import Outcome, Series
from bench.scenarios.turns import Options
from bench.subjects import Server, ours, ours_on_postgresql, running
from bench.wire import HOST, encode, read_answer, request

PICKUPS = 300
IDLE_SECONDS = 0.01
"""For the claim to come to its sleep before the job comes."""


class Caller:
    """One connection that asks and is answered in turn."""

    async def connect(self, port: int) -> None:
        self._reader, self._writer = await asyncio.open_connection(HOST, port)

    def send(self, method: str, path: str, **body: object) -> None:
        self._writer.write(request(method, path, encode(body)))

    async def answer(self, status: int) -> bytes:
        received = b""
        while (found := read_answer(received)) is None:
            received += await self._reader.read(65_536)
        if found[0] != status:
            raise MeasurementFailed(f"{found[0]} instead of {status}: {found[1][:300]!r}")
        return found[1]


def run(options: Options) -> Outcome:
    with ExitStack() as stack:
        databases = stack.enter_context(running_postgresql(options.directory))
        url = databases.empty()
        sqlite, one, other = (
            stack.enter_context(running(subject, options.directory))
            for subject in (
                ours(options.directory / "pickup.db"),
                ours_on_postgresql(url),
                ours_on_postgresql(url, "ours, PostgreSQL, another replica"),
            )
        )
        pairs = ((sqlite, sqlite), (one, one), (one, other))
        rounds: list[list[Measurement]] = [[] for _ in pairs]
        for number in range(1, options.rounds + 1):
            for (at, waits_at), its in zip(pairs, rounds, strict=True):
                options.say(f"pickup, round {number} of {options.rounds}: {waits_at.subject}")
                its.append(uvloop.run(_pick_up(at, waits_at)))
    series = [
        Series(
            subject=waits_at.subject,
            durability=waits_at.durability,
            what="pickup",
            step="pickup",
            connections=2,
            rounds=its,
        )
        for (_, waits_at), its in zip(pairs, rounds, strict=True)
    ]
    return Outcome(scenario="pickup", series=series, figures=[])


async def _pick_up(at: Server, waits_at: Server) -> Measurement:
    producer, worker = Caller(), Caller()
    await producer.connect(at.ports[0])
    await worker.connect(waits_at.ports[0])
    process, start, taken = psutil.Process(at.pids[0]), time.perf_counter(), list[int]()
    cpu = sum(process.cpu_times()[:2])
    for _ in range(PICKUPS):
        worker.send("POST", "/jobs/claim", worker_id="bench", wait_seconds=60)
        await asyncio.sleep(IDLE_SECONDS)
        created_at = time.perf_counter_ns()
        producer.send("POST", "/jobs", name="bench")
        lease = json.loads(await worker.answer(200))
        taken.append(time.perf_counter_ns() - created_at)
        await producer.answer(201)
        proof = {"worker_id": "bench", "lease_token": lease["lease_token"]}
        worker.send("PATCH", f"/jobs/{lease['id']}/status", status="succeeded", **proof)
        await worker.answer(200)
    latency = latency_of(taken)
    return Measurement(
        seconds=time.perf_counter() - start,
        requests=PICKUPS,
        conversations=PICKUPS,
        latency={"all": latency, "pickup": latency},
        failures={},
        server_cpu_seconds=sum(process.cpu_times()[:2]) - cpu,
        generator_cpu_seconds=0,
    )
