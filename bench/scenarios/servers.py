"""`servers`: two server processes on one PostgreSQL, beside one there and beside one on SQLite.

Each of the two has as many connections as a server has in the other scenarios; one has them all.
"""

from contextlib import ExitStack
from dataclasses import replace

from bench.databases import running_postgresql
from bench.outcome import Figure, Outcome, Series, compare, jobs_a_second
from bench.scenarios.turns import Options, measure_for_seconds, servers_in_turns
from bench.subjects import Server, ours, ours_on_postgresql, running


def run(options: Options) -> Outcome:
    options = replace(options, connections=2 * options.connections)
    with ExitStack() as stack:
        databases = stack.enter_context(running_postgresql(options.directory))
        url = databases.empty()
        sqlite, one, other = (
            stack.enter_context(running(subject, options.directory))
            for subject in (
                ours(options.directory / "servers.db"),
                ours_on_postgresql(databases.empty()),
                ours_on_postgresql(url),
            )
        )
        another = stack.enter_context(running(ours_on_postgresql(url), options.directory))
        two = Server(
            "ours, PostgreSQL, two servers",
            other.durability,
            other.ports + another.ports,
            other.pids + another.pids,
        )
        series: list[Series] = []
        figures: list[Figure] = []
        # The creates leave more jobs than the claims take.
        for what in ("create", "claim+report", "life"):
            its = servers_in_turns(
                what,
                [sqlite, one, two],
                options,
                lambda server, what=what: measure_for_seconds(server, what, options),
            )
            series += its
            figures += [jobs_a_second(each) for each in its]
            figures.append(
                compare(
                    f"jobs a second, {what}, two servers : one",
                    its[2],
                    its[1],
                    lambda measured: measured.conversations_per_second,
                )
            )
    return Outcome(scenario="servers", series=series, figures=figures)
