"""`pool`: one server on PostgreSQL with pools of several sizes. Writes share transactions, a read
takes a connection of its own: so the jobs are looked at, too.
"""

from bench.databases import running_postgresql
from bench.outcome import Outcome, jobs_a_second
from bench.scenarios.turns import Options, in_turns, measure_for_seconds
from bench.subjects import ours_on_postgresql

SIZES = (5, 10, 20)
LIFE = "life+heartbeat+look"


def run(options: Options) -> Outcome:
    with running_postgresql(options.directory) as databases:
        subjects = [
            ours_on_postgresql(databases.empty(), f"ours, PostgreSQL, pool of {size}", size)
            for size in SIZES
        ]
        series = in_turns(
            LIFE, subjects, options, lambda server: measure_for_seconds(server, LIFE, options)
        )
    return Outcome(
        scenario="pool",
        series=[*series, *(each.only("look") for each in series)],
        figures=[jobs_a_second(each) for each in series],
    )
