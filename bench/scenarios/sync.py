"""`sync`: four busy workers; each call reports the jobs of the one before and claims as many."""

from dataclasses import replace

from bench.databases import running_postgresql
from bench.measurement import Measurement
from bench.outcome import Figure, Outcome, Series
from bench.scenarios.turns import Options, in_turns, measure_for_seconds, measure_number
from bench.subjects import Server, ours, ours_on_postgresql

WORKERS = 4
JOBS_A_CALL = (100, 500)
FASTEST = 40_000
"""Jobs a second: so many are there before each measurement. If they run out it fails."""
FILLED_AT_ONCE = 1_000


def run(options: Options) -> Outcome:
    options = replace(options, connections=WORKERS)
    series: list[Series] = []
    figures: list[Figure] = []
    with running_postgresql(options.directory) as databases:
        for jobs in JOBS_A_CALL:
            what = f"sync {jobs}"
            subjects = [
                ours(options.directory / f"sync-{jobs}.db"),
                ours_on_postgresql(databases.empty()),
            ]

            def measure(server: Server, what: str = what) -> Measurement:
                fill(server, round(FASTEST * (options.seconds + options.warmup_seconds)))
                return measure_for_seconds(server, what, options)

            its = in_turns(what, subjects, options, measure)
            series += its
            figures += [jobs_a_second(each, jobs) for each in its]
    return Outcome(scenario="sync", series=series, figures=figures)


def fill(server: Server, jobs: int) -> None:
    """So many more jobs, by bulk creates."""
    measure_number(server, f"bulk {FILLED_AT_ONCE}", -(-jobs // FILLED_AT_ONCE), WORKERS)


def jobs_a_second(series: Series, jobs_a_call: int) -> Figure:
    """Claimed and reported. Of the calls those that do both are counted."""

    def of(measured: Measurement) -> float:
        return measured.latency["sync"].count * jobs_a_call / measured.seconds

    return Figure(
        what=f"jobs a second, {series.what}, {series.subject}",
        rounds=[of(measured) for measured in series.rounds],
    )
