"""What a task is called with, checked before it runs; what is made of its end."""

import functools
import logging
import re
from collections.abc import AsyncIterator, Iterator
from datetime import date
from typing import Annotated, Any, cast

import pytest
from pydantic import BaseModel, ConfigDict, Field, HttpUrl

from compute_orchestrator.client import Context, Permanent, Retry, Snooze
from compute_orchestrator.client.context import JobLog, Note, Notes
from compute_orchestrator.client.models import ClaimedJob
from compute_orchestrator.client.outcomes import (
    PayloadMismatch,
    Raised,
    Returned,
    describe,
    end_of_plain,
    report_of,
)
from compute_orchestrator.client.tasks import Function, Task


class Resized(BaseModel):
    width: int
    at: date


class Order(BaseModel):
    model_config = ConfigDict(strict=True)

    day: date
    size: int


def context(**fields: object) -> Context:
    job = ClaimedJob.model_validate(
        {
            "id": 7,
            "queue": "q",
            "name": "50%",
            "status": "running",
            "attempt": 2,
            "lease_token": "t",
            "locked_by": "w",
            "locked_at": "2026-11-23T21:45:47.000000Z",
            "lease_expires_at": "2026-11-23T21:46:47.000000Z",
            **fields,
        }
    )
    return Context(job, Notes(), JobLog(job))


def test_the_fields_of_the_payload_become_arguments_of_their_types() -> None:
    def resize(
        job: Context, url: HttpUrl, width: Annotated[int, Field(gt=0)], fit: bool = True
    ) -> None:
        """Takes what a payload brings."""

    given = context()
    bound = Task.of("resize", resize).bind({"url": "https://a.b/c", "width": 3}, given)
    assert bound == {"job": given, "url": HttpUrl("https://a.b/c"), "width": 3}


def test_a_strict_model_takes_its_dates_from_json() -> None:
    def bill(order: Order) -> None:
        """Takes a model."""

    bound = Task.of("bill", bill).bind({"order": {"day": "2026-11-23", "size": 1}}, context())
    assert bound == {"order": Order(day=date(2026, 11, 23), size=1)}


@pytest.mark.parametrize(
    ("payload", "said"),
    [
        ({"width": "x", "order": {"day": "2026-11-23", "size": "1"}}, "width: .*; order.size: "),
        ({"order": {"day": "2026-11-23", "size": 1}}, "width: is missing"),
        (None, "width: is missing; order: is missing"),
        ({"width": 1, "order": None, "high": 1}, "high: the task takes no such argument"),
        ({"width": 1, "order": None, "job": 1}, "job: the task takes no such argument"),
        ([1, 2], "no object"),
        ("x", "no object"),
    ],
)
def test_a_payload_that_does_not_fit_names_every_bad_field(payload: Any, said: str) -> None:
    def task(job: Context, width: int, order: Order) -> None:
        """Takes two."""

    with pytest.raises(PayloadMismatch, match=said):
        Task.of("task", task).bind(payload, context())


def test_the_context_is_found_by_its_type_or_by_the_name_job() -> None:
    def typed(width: int, me: Context) -> None:
        """By its type, wherever it stands."""

    def named(job, width: int) -> None:  # pyright: ignore[reportMissingParameterType, reportUnknownParameterType] - that is the point
        """By its name."""

    def foreign(job: str) -> None:
        """`job` of another type is the payload's."""

    def none() -> None:
        """Wants nothing."""

    assert Task.of("t", typed).context_argument == "me"
    assert Task.of("t", cast("Function", named)).context_argument == "job"
    assert Task.of("t", foreign).bind({"job": "x"}, context()) == {"job": "x"}
    assert Task.of("t", none).bind(None, context()) == {}


def test_other_fields_go_where_a_function_takes_any() -> None:
    def task(width: int, **others: float) -> None:
        """Takes any."""

    assert Task.of("t", task).bind({"width": 1, "a": 2}, context()) == {"width": 1, "a": 2.0}


def test_objects_partials_and_builtins_are_tasks_too() -> None:
    class Resizer:
        async def __call__(self, width: int) -> int:
            return width

    def scale(width: int, factor: int) -> int:
        return width * factor

    assert Task.of("t", Resizer()).is_async
    assert Task.of("t", Resizer()).bind({"width": 1}, context()) == {"width": 1}
    assert Task.of("t", functools.partial(scale, factor=2)).bind({"width": 1}, context()) == {
        "width": 1
    }


def _positional(width: int, /) -> None:
    """Has no name to be called by."""


def _several(*widths: int) -> None:
    """Has no names either."""


def _field(width: int = Field(gt=0)) -> None:
    """Its default is no number."""


def _generator() -> Iterator[int]:
    yield 1


async def _stream() -> AsyncIterator[int]:
    yield 1


@pytest.mark.parametrize("function", [_positional, _several, _field, _generator, _stream])
def test_what_a_payload_can_not_call_is_refused_when_it_is_registered(function: Function) -> None:
    with pytest.raises(TypeError, match="task 't'"):
        Task.of("t", function)


def test_types_that_exist_only_for_the_checker_are_refused_with_a_hint() -> None:
    def task(when: object) -> None:
        """Can't be checked."""

    task.__annotations__["when"] = "Nowhere"
    with pytest.raises(TypeError, match=r"'Nowhere'.*importable"):
        Task.of("t", task)


def test_a_result_is_sent_as_json_by_its_type() -> None:
    order = Order(day=date(2026, 11, 23), size=1)
    ended = end_of_plain(lambda: {"orders": (order,), "day": order.day})
    assert ended == Returned({"orders": [{"day": "2026-11-23", "size": 1}], "day": "2026-11-23"})


def test_a_result_is_written_by_the_type_that_the_task_says_it_returns() -> None:
    class Secretive(Resized):
        note: str

    def resize() -> list[Resized]:
        return [Secretive(width=3, at=date(2026, 11, 23), note="mine")]

    ended = end_of_plain(resize, Task.of("resize", resize).plain)
    assert ended == Returned([{"width": 3, "at": "2026-11-23"}])


@pytest.mark.filterwarnings("ignore")  # pydantic only warns, unless it is asked for an error
def test_a_result_of_another_type_fails_for_good_and_names_the_field() -> None:
    def resize() -> Resized:
        return Resized.model_construct(width="wide", at=date(2026, 11, 23))

    ended = end_of_plain(resize, Task.of("resize", resize).plain)
    report = report_of(ended)
    assert (report.status, report.retryable) == ("failed", False)
    assert report.error is not None
    assert report.error["type"] == "ResultUnusable"
    assert re.search("int.*field_name='width'", str(report.error["message"]))


def test_a_type_that_has_no_json_of_its_own_is_written_by_its_value() -> None:
    class Own:
        """Pydantic knows nothing of it."""

    def task() -> Own | None:
        return None

    assert Task.of("t", task).result is None
    assert end_of_plain(task, Task.of("t", task).plain) == Returned(None)


@pytest.mark.parametrize("result", [object(), float("nan"), "\ud800", {1: float("inf")}])
def test_a_result_that_is_no_json_fails_for_good(result: object) -> None:
    report = report_of(end_of_plain(lambda: result))
    assert (report.status, report.retryable) == ("failed", False)
    assert report.error is not None
    assert report.error["type"] == "ResultUnusable"


def test_what_a_task_raises_decides_what_becomes_of_its_job() -> None:
    assert report_of(Raised(Snooze(600))).fields() == {"status": "queued", "run_in_seconds": 600}
    assert report_of(Raised(Retry(in_seconds=30))).retry_in_seconds == 30
    assert report_of(Raised(Retry())).retryable is True
    assert report_of(Raised(Permanent("no such user"))).fields() == {
        "status": "failed",
        "error": {"type": "Permanent", "message": "no such user"},
        "retryable": False,
    }
    with pytest.raises(ValueError, match="seconds"):
        Retry(in_seconds=-1)
    with pytest.raises(ValueError, match="seconds"):
        Snooze(float("nan"))


def test_an_error_is_told_by_type_message_and_its_own_traceback() -> None:
    def broken() -> None:
        raise KeyError("nobody")

    ended = end_of_plain(broken)
    assert isinstance(ended, Raised)
    told = describe(ended.error)
    assert (told["type"], told["message"]) == ("KeyError", "'nobody'")
    assert "in broken" in str(told["traceback"])
    assert "outcomes.py" not in str(told["traceback"])


def test_an_error_is_told_in_words_that_the_server_takes() -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    def at_length() -> None:
        raise RuntimeError("\0\ud800" + "x" * 100_000)

    ended = end_of_plain(at_length)
    assert isinstance(ended, Raised)
    told = describe(ended.error)
    message, traceback = str(told["message"]), str(told["traceback"])
    assert message.startswith("\ufffd?xx")
    assert len(message) == 1_000
    assert len(traceback) == 8_000
    assert describe(Mute())["message"] == "(its message could not be made)"


def test_leaving_the_process_in_a_task_is_a_failure_of_the_task() -> None:
    def leave() -> None:
        raise SystemExit(3)

    report = report_of(end_of_plain(leave))
    assert (report.status, report.retryable) == ("failed", True)


def test_notes_wait_for_a_heartbeat_and_newer_ones_win() -> None:
    notes = Notes()
    notes.write(Note(progress=1, checkpoint="a"))
    taken = notes.take()
    assert not notes
    notes.write(Note(checkpoint="b"))
    notes.put_back(taken)
    assert notes.take() == Note(progress=1, checkpoint="b")


def test_a_checkpoint_is_kept_as_it_was_when_it_was_saved() -> None:
    job = context(checkpoint={"page": 1})
    assert job.checkpoint == {"page": 1}
    mine = {"page": 2}
    job.save(mine)
    mine["page"] = 3
    assert job.checkpoint == {"page": 2}
    for bad in (None, float("nan"), object()):
        with pytest.raises(ValueError):  # noqa: PT011 - each has words of its own
            job.save(bad)
    with pytest.raises(ValueError, match="JSON"):
        job.progress(float("nan"))


def test_log_lines_say_which_job_they_are_of(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        context().log.info("page %d", 2)
    assert caplog.messages == ["job 7 (50_, attempt 2): page 2"]
    bound = {"job_id": 7, "job_name": "50%", "attempt": 2, "worker_id": "w"}
    assert vars(caplog.records[0]).items() >= bound.items()
