"""`bulk`: POST /jobs/bulk with 100 and with 1,000 jobs a call, from four connections."""

from dataclasses import replace

from bench.databases import running_postgresql
from bench.measurement import Measurement
from bench.outcome import Figure, Outcome, Series
from bench.scenarios.turns import Options, in_turns, measure_for_seconds
from bench.subjects import ours, ours_on_postgresql

CALLERS = 4
JOBS_A_CALL = (100, 1_000)


def run(options: Options) -> Outcome:
    options = replace(options, connections=CALLERS)
    series: list[Series] = []
    figures: list[Figure] = []
    with running_postgresql(options.directory) as databases:
        for jobs in JOBS_A_CALL:
            what = f"bulk {jobs}"
            subjects = [
                ours(options.directory / f"bulk-{jobs}.db"),
                ours_on_postgresql(databases.empty()),
            ]
            its = in_turns(
                what,
                subjects,
                options,
                lambda server, what=what: measure_for_seconds(server, what, options),
            )
            series += its
            figures += [jobs_a_second(each, jobs) for each in its]
    return Outcome(scenario="bulk", series=series, figures=figures)


def jobs_a_second(series: Series, jobs_a_call: int) -> Figure:
    def of(measured: Measurement) -> float:
        return measured.conversations_per_second * jobs_a_call

    return Figure(
        what=f"jobs a second, {series.what}, {series.subject}",
        rounds=[of(measured) for measured in series.rounds],
    )
