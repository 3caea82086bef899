"""Workers that do their duties pass, and one that leaves one out fails that one."""

import asyncio
import json
import shlex
import subprocess
import sys
from collections.abc import AsyncGenerator, Awaitable, Sequence
from pathlib import Path
from typing import Final

import pytest

from compute_orchestrator.conformance import duties
from compute_orchestrator.conformance.duties import DUTIES, Duty
from compute_orchestrator.conformance.run import Outcome, Verdict, run_checks_on
from tests.conformance import workers
from tests.conformance.planted import Fault
from tests.conformance.workers import ALL, SDK, Example, planted
from tests.promises.servers import running_server

pytestmark = pytest.mark.process

ORC: Final = (sys.executable, "-m", "compute_orchestrator.cli.app")

# What each planted worker leaves out.
OWED: Final = {
    Fault.TAKES_FROM_ANY_QUEUE: duties.QUEUES,
    Fault.NEW_REQUEST_ID_AT_EACH_TRY: duties.CLAIM,
    Fault.NEVER_RESTS: duties.IDLE,
    Fault.FAILS_UNKNOWN_NAMES: duties.UNKNOWN,
    Fault.NO_HEARTBEAT: duties.HEARTBEAT,
    Fault.KEEPS_THE_FIRST_TOKEN: duties.TOKEN,
    Fault.LOSES_THE_RESULT: duties.OUTCOME,
    Fault.DROPS_A_REPORT_WITHOUT_ANSWER: duties.REPEAT,
    Fault.REPEATS_A_REFUSED_REPORT: duties.REFUSED,
    Fault.REPORTS_AFTER_A_LOST_LEASE: duties.LOST,
    Fault.IGNORES_A_CANCEL: duties.CANCEL,
    Fault.IS_IMPATIENT: duties.PATIENCE,
    Fault.IGNORES_SIGTERM: duties.STOP,
    Fault.FORGETS_THE_CLAIM_ON_ITS_WAY: duties.STOP,
    Fault.IS_STRICT: duties.TOLERANCE,
}

# Checks that are over in a second, whichever way.
QUICK: Final = (duties.QUEUES, duties.UNKNOWN, duties.OUTCOME)

# These are asked about all duties; the others, about the one that they leave out.
ASKED_ABOUT_ALL: Final = (
    Fault.NONE,
    Fault.NO_HEARTBEAT,
    Fault.IGNORES_A_CANCEL,
    Fault.DROPS_A_REPORT_WITHOUT_ANSWER,
    Fault.REPORTS_AFTER_A_LOST_LEASE,
    Fault.IGNORES_SIGTERM,
    Fault.NEW_REQUEST_ID_AT_EACH_TRY,
)


@pytest.fixture
async def url(tmp_path: Path) -> AsyncGenerator[str]:
    async with running_server(tmp_path) as server:
        yield server.url


def verdicts(
    url: str, command: Sequence[str], folder: Path, wanted: Sequence[Duty] = DUTIES
) -> Awaitable[list[Verdict]]:
    folder.mkdir()
    return run_checks_on(url, command, folder, duties=wanted)


def failed(found: Sequence[Verdict]) -> set[Duty]:
    return {verdict.duty for verdict in found if verdict.outcome is Outcome.FAILED}


def passed(found: Sequence[Verdict]) -> set[Duty]:
    return {verdict.duty for verdict in found if verdict.outcome is Outcome.PASSED}


def test_every_duty_has_a_worker_that_leaves_it_out() -> None:
    assert set(OWED) == set(Fault) - {Fault.NONE}
    assert set(DUTIES) - set(OWED.values()) == {duties.SYNC}  # the planted make single calls


async def test_a_good_worker_passes_where_a_bad_one_fails(url: str, tmp_path: Path) -> None:
    bad = [fault for fault, duty in OWED.items() if duty in QUICK]
    good, *found = await asyncio.gather(
        verdicts(url, planted(Fault.NONE), tmp_path / "good", QUICK),
        *(verdicts(url, planted(fault), tmp_path / fault, [OWED[fault]]) for fault in bad),
    )
    assert passed(good) == set(QUICK), good
    assert [failed(one) for one in found] == [{OWED[fault]} for fault in bad], found


@pytest.mark.parametrize("example", [workers.BASH, workers.NODE], ids=["bash", "node"])
async def test_an_example_does_a_jobs_work(url: str, tmp_path: Path, example: Example) -> None:
    skip_without_tools(example)
    found = await verdicts(url, example.build(tmp_path), tmp_path / "logs", QUICK)
    assert passed(found) == set(QUICK), found


@pytest.mark.slow
@pytest.mark.timeout(150)
@pytest.mark.parametrize("fault", ASKED_ABOUT_ALL)
async def test_a_worker_fails_just_the_duty_that_it_leaves_out(
    url: str, tmp_path: Path, fault: Fault
) -> None:
    found = await verdicts(url, planted(fault), tmp_path / "logs")
    assert failed(found) == ({OWED[fault]} if fault in OWED else set[Duty]()), found


@pytest.mark.slow
@pytest.mark.timeout(150)
async def test_each_other_fault_is_found_too(url: str, tmp_path: Path) -> None:
    others = [fault for fault in OWED if fault not in ASKED_ABOUT_ALL]
    found = await asyncio.gather(
        *(verdicts(url, planted(fault), tmp_path / fault, [OWED[fault]]) for fault in others)
    )
    assert [failed(one) for one in found] == [{OWED[fault]} for fault in others], found


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", ALL)
def test_an_example_does_all_of_its_duties(tmp_path: Path, name: str) -> None:
    skip_without_tools(ALL[name])
    passes(ALL[name].build(tmp_path))


@pytest.mark.slow
@pytest.mark.timeout(150)
def test_a_worker_of_the_sdk_does_all_of_its_duties() -> None:
    passes(SDK)


def skip_without_tools(example: Example) -> None:
    if example.missing:
        pytest.skip(f"{', '.join(example.missing)} not on this machine")


def passes(command: Sequence[str]) -> None:
    """By the command that a reader would run."""
    done = subprocess.run(
        [*ORC, "conformance", "--json", "--command", shlex.join(command)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    found = [json.loads(line) for line in done.stdout.splitlines()]
    bad = [verdict for verdict in found if verdict["outcome"] != "passed"]
    assert [verdict for verdict in bad if verdict["duty"] != duties.SYNC.name] == [], done.stderr
    assert len(found) == len(DUTIES)
    assert done.returncode == 0
