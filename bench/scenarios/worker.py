"""`worker`: a real worker of the SDK with no-op tasks, concurrency 50; beside the load generator's
sync calls on the same server; whole lives, with the creates beside it; and an idle one.
"""

import json
import subprocess
import sys
import time
from dataclasses import replace
from threading import Thread
from urllib.request import urlopen

from bench.databases import running_postgresql
from bench.measurement import Measurement
from bench.outcome import Figure, Outcome, Series
from bench.scenarios import sync
from bench.scenarios.turns import Options, in_turns, measure_for_seconds
from bench.sdk import Effort, Order
from bench.subjects import ROOT, Server, ours, ours_on_postgresql
from bench.wire import HOST

CONCURRENCY = 50
JOBS = 20_000
"""In each measurement of the worker."""
IDLE_SECONDS = 10
RAW = "sync 100"


def run(options: Options) -> Outcome:
    options = replace(options, connections=1)
    efforts: dict[str, list[Effort]] = {}
    lives: dict[str, list[float]] = {}
    idle: list[Effort] = []

    def measure(server: Server) -> Measurement:
        """The generator's calls, as one worker; then the SDK does the same, then whole lives."""
        sync.fill(server, round(sync.FASTEST * (options.seconds + options.warmup_seconds)))
        raw = measure_for_seconds(server, RAW, options)
        drain(server)
        sync.fill(server, JOBS)
        efforts.setdefault(server.subject, []).append(work(server, jobs=JOBS))
        lives.setdefault(server.subject, []).append(live(server))
        if len(idle) < options.rounds:
            idle.append(work(server, seconds=IDLE_SECONDS))
        return raw

    with running_postgresql(options.directory) as databases:
        subjects = [
            ours(options.directory / "worker.db"),
            ours_on_postgresql(databases.empty()),
        ]
        series = in_turns(RAW, subjects, options, measure)
    figures = [Figure(what="% of a core, idle", rounds=[100 * share(one) for one in idle])]
    for its in series:
        raw = sync.jobs_a_second(its, 100)
        figures += [raw, *of_worker(its, efforts[its.subject], raw, lives[its.subject])]
    return Outcome(scenario="worker", series=series, figures=figures)


def work(server: Server, *, jobs: int = 0, seconds: float = 0) -> Effort:
    order = Order(
        url=f"http://{HOST}:{server.ports[0]}", concurrency=CONCURRENCY, jobs=jobs, seconds=seconds
    )
    done = subprocess.run(
        [sys.executable, "-m", "bench.sdk"],
        cwd=ROOT,
        input=order.model_dump_json(),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        check=True,
    )
    return Effort.model_validate_json(done.stdout)


def drain(server: Server) -> None:
    """What the generator left, so that each worker finds its own jobs alone."""
    left = queued(server)
    if left:
        work(server, jobs=left)


def queued(server: Server) -> int:
    with urlopen(f"http://{HOST}:{server.ports[0]}/stats") as answer:
        queues = json.load(answer)["queues"]
    return queues["default"]["queued"] if "default" in queues else 0


def live(server: Server) -> float:
    """Jobs a second from the first create to the last result: a producer beside the worker."""
    producing = Thread(target=sync.fill, args=(server, JOBS))
    start = time.perf_counter()
    producing.start()
    work(server, jobs=JOBS)
    seconds = time.perf_counter() - start
    producing.join()
    return JOBS / seconds


def share(effort: Effort) -> float:
    return effort.cpu_seconds / effort.seconds


def of_worker(
    series: Series, efforts: list[Effort], raw: Figure, lives: list[float]
) -> list[Figure]:
    rates = [JOBS / effort.seconds for effort in efforts]
    name = series.subject
    return [
        Figure(what=f"jobs a second, SDK worker, {name}", rounds=rates),
        Figure(
            what=f"jobs a second, SDK worker : generator, {name}",
            rounds=[ours / its for ours, its in zip(rates, raw.rounds, strict=True)],
        ),
        Figure(
            what=f"CPU us of the SDK worker a job, {name}",
            rounds=[effort.cpu_seconds / JOBS * 1e6 for effort in efforts],
        ),
        Figure(what=f"whole lives a second, with the producer beside it, {name}", rounds=lives),
    ]
