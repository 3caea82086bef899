"""`create`: POST /jobs with a small payload, beside FastAPI without a store."""

from bench.outcome import Outcome, compare
from bench.scenarios.turns import Options, in_turns, measure_for_seconds
from bench.subjects import ceiling, fixed, ours


def run(options: Options) -> Outcome:
    subjects = [ours(options.directory / "create.db"), ceiling(), fixed()]
    series = in_turns(
        "create",
        subjects,
        options,
        lambda server: measure_for_seconds(server, "create", options),
    )
    rate = compare(
        "requests a second, ours : ceiling",
        series[0],
        series[1],
        lambda measured: measured.requests_per_second,
    )
    return Outcome(scenario="create", series=series, ratios=[rate])
