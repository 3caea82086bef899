"""`claim-report`: claim a job, report it succeeded with a result; each is counted as a request."""

from bench.databases import running_postgresql
from bench.measurement import Measurement
from bench.outcome import Outcome
from bench.scenarios.turns import Options, beside_ceiling, fill_queue, in_turns, measure_for_seconds
from bench.subjects import Server, ceiling, fixed, ours, ours_on_postgresql


def run(options: Options) -> Outcome:
    def measure(server: Server) -> Measurement:
        fill_queue(server, options)
        return measure_for_seconds(server, "claim+report", options)

    with running_postgresql(options.directory) as databases:
        subjects = [
            ours(options.directory / "claim-report.db"),
            ours_on_postgresql(databases.empty()),
            ceiling(),
            fixed(),
        ]
        series = in_turns("claim+report", subjects, options, measure)
    sqlite, postgresql, no_store, _ = series
    figures = [*beside_ceiling(sqlite, no_store), *beside_ceiling(postgresql, no_store)]
    return Outcome(scenario="claim-report", series=series, figures=figures)
