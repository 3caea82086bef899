"""`big`: a claim's cost in a full store, beside one that holds nothing but the jobs it claims."""

from contextlib import ExitStack
from dataclasses import replace

from bench.databases import running_postgresql
from bench.filling import Backlog, fill, fill_postgresql
from bench.outcome import Outcome, compare
from bench.scenarios.turns import Options, measure_number, servers_in_turns
from bench.subjects import ours, ours_on_postgresql, running

FULL = Backlog(finished=1_000_000, queued=100_000, delayed=200_000)

# The same number of jobs on both sides, whatever each takes for them.
CLAIMS_ALONE = 300
CLAIMS_TOGETHER = 3_000


def run(options: Options) -> Outcome:
    claimed = options.rounds * (CLAIMS_ALONE + CLAIMS_TOGETHER)
    backlogs = {
        "full": replace(FULL, queued=max(FULL.queued, claimed)),
        "empty": Backlog(0, claimed, 0),
    }
    with ExitStack() as stack:
        databases = stack.enter_context(running_postgresql(options.directory))
        subjects = []
        for name, backlog in backlogs.items():
            options.say(f"filling a file: {backlog}")
            file = options.directory / f"{name}.db"
            subjects.append(ours(file, f"ours, SQLite, {name}"))
            with running(subjects[-1], options.directory):
                pass  # it makes the file and its schema
            fill(file, backlog)
        for name, backlog in backlogs.items():
            options.say(f"filling a database: {backlog}")
            url = databases.empty()
            subjects.append(ours_on_postgresql(url, f"ours, PostgreSQL, {name}"))
            fill_postgresql(url, backlog)

        servers = [stack.enter_context(running(each, options.directory)) for each in subjects]
        alone = servers_in_turns(
            "claim+report",
            servers,
            replace(options, connections=1),
            lambda it: measure_number(it, "claim+report", CLAIMS_ALONE, 1),
        )
        together = servers_in_turns(
            "claim+report",
            servers,
            options,
            lambda it: measure_number(it, "claim+report", CLAIMS_TOGETHER, options.connections),
        )
    figures = []
    for store, full, empty in (("SQLite", 0, 1), ("PostgreSQL", 2, 3)):
        figures += [
            compare(
                f"median of a claim alone, {store}, full : empty",
                alone[full],
                alone[empty],
                lambda measured: measured.latency["claim"].p50,
            ),
            compare(
                f"requests a second, {store}, full : empty",
                together[full],
                together[empty],
                lambda measured: measured.requests_per_second,
            ),
        ]
    return Outcome(
        scenario="big",
        series=[*(each.only("claim") for each in alone), *together],
        figures=figures,
    )
