"""`cost`: what PostgreSQL writes, commits and leaves behind for each finished job."""

from bench.databases import figures_for_each_job, running_postgresql
from bench.outcome import Figure, Outcome, Series
from bench.scenarios.turns import Options, in_turns, measure_number
from bench.subjects import ours_on_postgresql

JOBS = 5_000


def run(options: Options) -> Outcome:
    series = list[Series]()
    figures = list[Figure]()
    with running_postgresql(options.directory) as databases:
        for what in ("life", "life+heartbeat"):
            url = databases.empty()
            before = databases.counters(url)
            series += in_turns(
                what,
                [ours_on_postgresql(url)],
                options,
                lambda server, what=what: measure_number(server, what, JOBS, options.connections),
            )
            jobs = options.rounds * JOBS
            figures += figures_for_each_job(what, before, databases.counters(url), jobs)
    return Outcome(scenario="cost", series=series, figures=figures)
