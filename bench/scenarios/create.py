"""`create`: POST /jobs with a small payload, beside FastAPI without a store."""

from bench.outcome import Outcome
from bench.scenarios.turns import Options, beside_ceiling, in_turns, measure_for_seconds
from bench.subjects import ceiling, fixed, ours


def run(options: Options) -> Outcome:
    subjects = [ours(options.directory / "create.db"), ceiling(), fixed()]
    series = in_turns(
        "create",
        subjects,
        options,
        lambda server: measure_for_seconds(server, "create", options),
    )
    return Outcome(scenario="create", series=series, ratios=beside_ceiling(series[0], series[1]))
