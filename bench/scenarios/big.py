"""`big`: a claim's cost in a full file, beside one that holds nothing but the jobs it claims."""

from contextlib import ExitStack
from dataclasses import replace

from bench.filling import Backlog, fill
from bench.load import run_load
from bench.measurement import Measurement, MeasurementFailed, Plan
from bench.outcome import Outcome, compare
from bench.scenarios.turns import Options, servers_in_turns
from bench.subjects import Server, ours, running

FULL = Backlog(finished=1_000_000, queued=100_000, delayed=200_000)

# The same number of jobs on both sides, whatever each takes for them.
CLAIMS_ALONE = 300
CLAIMS_TOGETHER = 3_000
LONGEST_SECONDS = 30


def run(options: Options) -> Outcome:
    claimed = options.rounds * (CLAIMS_ALONE + CLAIMS_TOGETHER)
    backlogs = {
        "full": replace(FULL, queued=max(FULL.queued, claimed)),
        "empty": Backlog(0, claimed, 0),
    }
    subjects = [ours(options.directory / f"{name}.db", f"ours, {name}") for name in backlogs]
    for subject, (name, backlog) in zip(subjects, backlogs.items(), strict=True):
        options.say(f"filling a file: {backlog}")
        with running(subject, options.directory):
            pass  # it makes the file and its schema
        fill(options.directory / f"{name}.db", backlog)

    single = replace(options, connections=1)
    with ExitStack() as stack:
        servers = [stack.enter_context(running(each, options.directory)) for each in subjects]
        alone = servers_in_turns(
            "claim+report", servers, single, lambda it: _claim_jobs(it, CLAIMS_ALONE, 1)
        )
        together = servers_in_turns(
            "claim+report",
            servers,
            options,
            lambda it: _claim_jobs(it, CLAIMS_TOGETHER, options.connections),
        )
    latency = compare(
        "median of a claim alone, full : empty",
        alone[0],
        alone[1],
        lambda measured: measured.latency["claim"].p50,
    )
    rate = compare(
        "requests a second, full : empty",
        together[0],
        together[1],
        lambda measured: measured.requests_per_second,
    )
    return Outcome(
        scenario="big",
        series=[*(each.only("claim") for each in alone), *together],
        ratios=[latency, rate],
    )


def _claim_jobs(server: Server, count: int, connections: int) -> Measurement:
    measured = run_load(
        Plan(
            port=server.port,
            server_pid=server.pid,
            conversation="claim+report",
            connections=connections,
            seconds=LONGEST_SECONDS,
            limit=count,
        )
    )
    if measured.conversations != count:
        raise MeasurementFailed(f"{measured.conversations} of {count} jobs in {LONGEST_SECONDS} s")
    return measured
