"""`claim-report`: claim a job, report it succeeded with a result; each is counted as a request."""

from bench.measurement import Measurement
from bench.outcome import Outcome
from bench.scenarios.turns import Options, beside_ceiling, fill_queue, in_turns, measure_for_seconds
from bench.subjects import Server, ceiling, fixed, ours


def run(options: Options) -> Outcome:
    def measure(server: Server) -> Measurement:
        fill_queue(server, options)
        return measure_for_seconds(server, "claim+report", options)

    subjects = [ours(options.directory / "claim-report.db"), ceiling(), fixed()]
    series = in_turns("claim+report", subjects, options, measure)
    return Outcome(
        scenario="claim-report", series=series, ratios=beside_ceiling(series[0], series[1])
    )
