"""Subjects measured in turns (A B A B): what slows the machine for a while slows all of them."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from bench.load import run_load
from bench.measurement import Measurement, MeasurementFailed, Plan
from bench.outcome import Figure, Series, compare
from bench.subjects import NO_STORE, Server, Subject, running

FILLING_CONNECTIONS = 64
LONGEST_SECONDS = 60
"""For a number of conversations."""


@dataclass(frozen=True)
class Options:
    rounds: int
    seconds: float
    warmup_seconds: float
    connections: int
    minutes: int
    directory: Path
    # Told what runs now.
    say: Callable[[str], None]


def in_turns(
    what: str,
    subjects: Sequence[Subject],
    options: Options,
    measure: Callable[[Server], Measurement],
) -> list[Series]:
    """One series a subject, in their order; each subject is one process for all its rounds."""
    with ExitStack() as stack:
        servers = [stack.enter_context(running(each, options.directory)) for each in subjects]
        return servers_in_turns(what, servers, options, measure)


def servers_in_turns(
    what: str,
    servers: Sequence[Server],
    options: Options,
    measure: Callable[[Server], Measurement],
) -> list[Series]:
    series = [
        Series(
            subject=server.subject,
            durability=server.durability,
            what=what,
            connections=options.connections,
            rounds=[],
        )
        for server in servers
    ]
    for number in range(1, options.rounds + 1):
        for server, its in zip(servers, series, strict=True):
            options.say(f"{what}, round {number} of {options.rounds}: {server.subject}")
            its.rounds.append(measure(server))
    return series


def beside_ceiling(subject: Series, ceiling: Series) -> list[Figure]:
    return [
        compare(
            f"requests a second, {subject.subject} : ceiling",
            subject,
            ceiling,
            lambda measured: measured.requests_per_second,
        ),
        # Steadier where other processes take their share of the machine.
        compare(
            f"requests a second of the server's CPU, {subject.subject} : ceiling",
            subject,
            ceiling,
            lambda measured: 1 / measured.server_cpu_us,
        ),
    ]


def measure_for_seconds(server: Server, conversation: str, options: Options) -> Measurement:
    return run_load(
        Plan(
            ports=server.ports,
            server_pids=server.pids,
            conversation=conversation,
            connections=options.connections,
            seconds=options.seconds,
            warmup_seconds=options.warmup_seconds,
        )
    )


def measure_number(server: Server, conversation: str, number: int, connections: int) -> Measurement:
    """So many conversations, however long they take."""
    measured = run_load(
        Plan(
            ports=server.ports,
            server_pids=server.pids,
            conversation=conversation,
            connections=connections,
            seconds=LONGEST_SECONDS,
            limit=number,
        )
    )
    if measured.conversations != number:
        raise MeasurementFailed(f"{measured.conversations} of {number} in {LONGEST_SECONDS} s")
    return measured


def fill_queue(server: Server, options: Options) -> None:
    """Creates jobs for as long as they are claimed afterwards.

    A claim and its report are two requests, each dearer than a create: the queue can't run dry.
    If it does, the claim's 204 fails the measurement.
    """
    if server.durability != NO_STORE:
        run_load(
            Plan(
                ports=server.ports,
                server_pids=server.pids,
                conversation="create",
                connections=FILLING_CONNECTIONS,
                seconds=options.warmup_seconds + options.seconds,
            )
        )
