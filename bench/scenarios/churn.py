"""`churn`: jobs are made and done at a steady rate, for minutes. A claim of the last minute beside
one of the first: what dead versions of rows, and ever more finished jobs, do to it.
"""

from dataclasses import replace

from bench.databases import figures_for_each_job, running_postgresql
from bench.load import run_load
from bench.measurement import Plan
from bench.outcome import Figure, Outcome, Series, compare, jobs_a_second
from bench.scenarios.turns import Options, measure_number, servers_in_turns
from bench.subjects import Subject, ours, ours_on_postgresql, running

LIFE = "life+heartbeat"
JOBS_A_SECOND = 250
"""A good part of what a server bears. Near all of it a claim would mostly wait for its turn."""
BACKLOG = 1_000
"""Jobs that always wait: none of the claims comes back empty."""
MINUTE_SECONDS = 60.0


def run(options: Options) -> Outcome:
    with running_postgresql(options.directory) as databases:
        url = databases.empty()
        sqlite = _minutes(ours(options.directory / "churn.db"), options)
        before = databases.counters(url)
        postgresql = _minutes(ours_on_postgresql(url), options)
        after = databases.counters(url)
    figures = list[Figure]()
    for first, last in ((sqlite[0], sqlite[-1]), (postgresql[0], postgresql[-1])):
        claim = compare(
            f"median of a claim, {last.subject} : {first.subject}",
            last,
            first,
            lambda measured: measured.latency["claim"].p50,
        )
        figures += [jobs_a_second(first), jobs_a_second(last), claim]
    jobs = sum(minute.rounds[0].conversations for minute in postgresql)
    figures += figures_for_each_job("PostgreSQL", before, after, jobs)
    claims = [minute.only("claim") for minute in (*sqlite, *postgresql)]
    return Outcome(scenario="churn", series=claims, figures=figures)


def _minutes(subject: Subject, options: Options) -> list[Series]:
    """A series a minute, each right after the one before."""
    minutes = list[Series]()
    with running(subject, options.directory) as server:
        measure_number(server, "create", BACKLOG, options.connections)
        plan = Plan(
            ports=server.ports,
            server_pids=server.pids,
            conversation=LIFE,
            connections=options.connections,
            seconds=MINUTE_SECONDS,
            rate=JOBS_A_SECOND,
        )
        for number in range(1, options.minutes + 1):
            named = replace(server, subject=f"{subject.name}, minute {number}")
            minutes += servers_in_turns(
                LIFE, [named], replace(options, rounds=1), lambda _: run_load(plan)
            )
    return minutes
