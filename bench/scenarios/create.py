"""`create`: POST /jobs with a small payload, beside FastAPI without a store."""

from bench.databases import running_postgresql
from bench.outcome import Outcome
from bench.scenarios.turns import Options, beside_ceiling, in_turns, measure_for_seconds
from bench.subjects import ceiling, fixed, ours, ours_on_postgresql


def run(options: Options) -> Outcome:
    with running_postgresql(options.directory) as databases:
        subjects = [
            ours(options.directory / "create.db"),
            ours_on_postgresql(databases.empty()),
            ceiling(),
            fixed(),
        ]
        series = in_turns(
            "create",
            subjects,
            options,
            lambda server: measure_for_seconds(server, "create", options),
        )
    sqlite, postgresql, no_store, _ = series
    figures = [*beside_ceiling(sqlite, no_store), *beside_ceiling(postgresql, no_store)]
    return Outcome(scenario="create", series=series, figures=figures)
