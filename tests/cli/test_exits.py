"""Which error ends a command with which code, and what it says then."""

from collections.abc import Iterator

import pytest
import typer
from typer.testing import CliRunner

from compute_orchestrator.cli import exits, output
from compute_orchestrator.cli.app import app
from compute_orchestrator.client import errors
from compute_orchestrator.client.models import Job
from tests.cli.orc import Orc

CODES = {
    errors.ConnectFailed: exits.UNAVAILABLE,
    errors.ConnectionBroken: exits.UNAVAILABLE,
    errors.CallTimedOut: exits.UNAVAILABLE,
    errors.UnusableAnswer: exits.UNAVAILABLE,
    errors.JobFailed: exits.FAILED,
    errors.JobCancelled: exits.FAILED,
    errors.ResultTimeout: exits.TIMED_OUT,
    errors.JobNotFound: exits.NOT_FOUND,
    errors.LeaseLost: exits.CONFLICT,
    errors.InvalidTransition: exits.CONFLICT,
    errors.ValidationFailed: exits.MISUSED,
    errors.IdempotencyMismatch: exits.CONFLICT,
    errors.PayloadTooLarge: exits.MISUSED,
    errors.UnsupportedMediaType: exits.MISUSED,
    errors.RequestTimeout: exits.UNAVAILABLE,
    errors.NotLocal: exits.FAILED,
    errors.OriginRefused: exits.FAILED,
    errors.HostRefused: exits.FAILED,
    errors.MethodNotAllowed: exits.FAILED,
    errors.InternalError: exits.UNAVAILABLE,
    errors.StoreUnavailable: exits.UNAVAILABLE,
    errors.Overloaded: exits.UNAVAILABLE,
    errors.ShuttingDown: exits.UNAVAILABLE,
}


def leaves(kind: type[errors.ClientError]) -> Iterator[type[errors.ClientError]]:
    """Those below it that have none below them."""
    below = kind.__subclasses__()
    if not below:
        yield kind
    for child in below:
        yield from leaves(child)


def an_error(kind: type[errors.ClientError]) -> errors.ClientError:
    job = Job(id=7, queue="q", name="resize", status="failed")
    if issubclass(kind, errors.ResultTimeout):
        return kind(job, 1.0)
    if issubclass(kind, errors.JobFailed | errors.JobCancelled):
        return kind(job)
    if issubclass(kind, errors.Problem):
        return kind("It is so.", status=400, code="so")
    return kind("it is so")


def test_every_error_of_the_client_has_its_code() -> None:
    assert set(leaves(errors.ClientError)) == set(CODES)
    found = {kind: exits.ending_of(an_error(kind)) for kind in CODES}
    assert {kind: ending.code for kind, ending in found.items()} == CODES
    assert [ending for ending in found.values() if not ending.sentence] == []


def test_an_answer_of_another_program_is_no_word_on_the_job() -> None:
    page = errors.problem_from(404, b"<html>", retry_after_seconds=None)
    assert exits.ending_of(page).code == exits.UNAVAILABLE
    busy = errors.problem_from(429, b"", retry_after_seconds=None)
    assert exits.ending_of(busy).code == exits.UNAVAILABLE


def test_the_server_says_what_is_wrong_with_which_field() -> None:
    faults = [{"where": "body.queue", "what": "no slash"}, {"where": "query.limit", "what": "few"}]
    error = errors.ValidationFailed("bad", status=422, extra={"errors": faults})
    assert exits.ending_of(error).sentence == "queue: no slash; limit: few"


async def test_the_help_lists_the_exit_codes(orc: Orc) -> None:
    shown = (await orc("--help")).stdout
    for code, meaning in exits.MEANINGS.items():
        assert f"{code:>4}  {meaning}" in shown


def test_a_fault_of_ours_stays_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("compute_orchestrator.cli.stats.ask", broken)
    result = CliRunner().invoke(app, ["stats"])
    assert isinstance(result.exception, ZeroDivisionError)


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(None, "-"), (0, "0.0 s"), (59.94, "59.9 s"), (61, "1 min 01 s"), (3_725, "1 h 02 min")],
)
def test_durations_are_shown_for_people(seconds: float | None, shown: str) -> None:
    assert output.show_seconds(seconds) == shown


@pytest.mark.parametrize(
    ("progress", "shown"),
    [
        (None, "-"),
        ({"fraction": 0.4, "message": None}, "40%"),
        ({"fraction": 1, "message": "done"}, "100% done"),
        ({"pages": 3}, '{"pages": 3}'),
        ([1], "[1]"),
    ],
)
def test_progress_is_shown_whatever_it_is(progress: object, shown: str) -> None:
    assert output.show_progress(progress) == shown


def test_columns_fit_wide_letters(capsys: pytest.CaptureFixture[str]) -> None:
    output.write_table(("NAME", "N"), [("画像", "1"), ("a", "2")])
    assert capsys.readouterr().out == "NAME  N\n画像  1\na     2\n"


def test_colours_are_for_terminals_whose_users_want_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert output.has_colours()
    monkeypatch.setenv("NO_COLOR", "1")
    assert not output.has_colours()
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "dumb")
    assert not output.has_colours()


def test_a_stop_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit) as ended:
        exits.stop("it is so", code=exits.CONFLICT)
    assert ended.value.exit_code == exits.CONFLICT
    assert capsys.readouterr().err == "orc: it is so\n"
