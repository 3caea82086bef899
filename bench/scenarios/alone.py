"""`alone`: one connection, nobody to share a transaction with: what a claim takes at best."""

from dataclasses import replace

from bench.measurement import Measurement
from bench.outcome import Outcome, compare
from bench.scenarios.turns import Options, fill_queue, in_turns, measure_for_seconds
from bench.subjects import Server, ceiling, ours


def run(options: Options) -> Outcome:
    single = replace(options, connections=1)

    def measure(server: Server) -> Measurement:
        fill_queue(server, single)
        return measure_for_seconds(server, "claim+report", single)

    subjects = [ours(options.directory / "alone.db"), ceiling()]
    pairs = in_turns("claim+report", subjects, single, measure)
    series = [pair.only(step) for pair in pairs for step in ("claim", "report")]
    claim = compare(
        "median of a claim, ours : ceiling",
        pairs[0],
        pairs[1],
        lambda measured: measured.latency["claim"].p50,
    )
    return Outcome(scenario="alone", series=series, figures=[claim])
