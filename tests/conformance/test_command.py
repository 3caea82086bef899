"""`orc conformance`: what it is told, what it says, and its exit code."""

import json

import pytest
from typer.testing import CliRunner, Result

from compute_orchestrator.cli import conformance as command
from compute_orchestrator.cli import plain
from compute_orchestrator.cli.app import app
from compute_orchestrator.conformance.duties import CANCEL, CLAIM, SYNC
from compute_orchestrator.conformance.run import Outcome, Verdict

PASSED = Verdict(CLAIM, Outcome.PASSED)
FAILED = Verdict(CANCEL, Outcome.FAILED, "it went on", ["at work\x1b[2J"])
UNTESTED = Verdict(SYNC, Outcome.NOT_TESTED, "single calls")


def orc_conformance(*flags: str) -> Result:
    return CliRunner().invoke(app, ["conformance", *flags], prog_name="orc")


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> list[Verdict]:
    """What the checks come to, whatever the command."""
    verdicts: list[Verdict] = []
    monkeypatch.setattr(command, "judge", lambda *_, **__: verdicts)  # pyright: ignore[reportUnknownLambdaType, reportUnknownArgumentType]
    return verdicts


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--command", "w", "--only", "W99"], "there is no duty 'W99'; they are W1 to W15"),
        (["--command", "say 'this"], "--command can't be read: No closing quotation"),
        (["--command", " "], "--command is empty"),
    ],
)
def test_what_can_not_work_is_said(flags: list[str], said: str) -> None:
    refused = orc_conformance(*flags)
    assert (refused.exit_code, refused.stderr) == (2, f"orc: {said}\n")


def test_without_the_server_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plain, "SERVER_PACKAGES", ("no_such_package",))
    refused = orc_conformance("--command", "w")
    assert refused.exit_code == 2
    assert "pip install 'compute-orchestrator[server]'" in refused.stderr


def test_a_worker_that_can_not_be_started_is_named() -> None:
    refused = orc_conformance("--command", "no-such-worker --now", "--only", "w4")
    assert refused.exit_code == 2
    assert refused.stderr == "orc: can't start 'no-such-worker': there is no such program\n"


def test_reasons_and_last_lines_stand_below_the_table(found: list[Verdict]) -> None:
    found += [PASSED, FAILED, UNTESTED]
    said = orc_conformance("--command", "w")
    assert said.exit_code == 1
    assert said.stdout == (
        "DUTY  OUTCOME     WHAT\n"
        "W2    passed      A claim that got no answer is repeated with its request_id\n"
        "W11   failed      It obeys a cancel request\n"
        "W15   not tested  A busy worker syncs, and reads each item's own answer\n"
        "\n"
        "W11 failed: it went on.\n"
        "    The worker's last lines:\n"
        "    | at work�[2J\n"
        "\n"
        "W15 not tested: single calls.\n"
    )


def test_programs_get_a_line_for_each_duty(found: list[Verdict]) -> None:
    found += [FAILED]
    said = orc_conformance("--command", "w", "--json")
    assert json.loads(said.stdout) == {
        "duty": "W11",
        "title": "It obeys a cancel request",
        "outcome": "failed",
        "why": "it went on",
        "last_lines": ["at work\x1b[2J"],
    }


@pytest.mark.parametrize(
    ("verdicts", "code"),
    [([PASSED], 0), ([PASSED, UNTESTED], 0), ([UNTESTED], 1), ([PASSED, FAILED], 1)],
)
def test_the_exit_code_says_whether_it_is_good(
    found: list[Verdict], verdicts: list[Verdict], code: int
) -> None:
    found += verdicts
    assert orc_conformance("--command", "w").exit_code == code
