"""The table of allowed moves, against the picture of a job's life written here a second time."""

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compute_orchestrator.domain.lifecycle import (
    FINAL,
    TRANSITIONS,
    Action,
    Status,
    Step,
    allows,
)
from compute_orchestrator.domain.report import Report, ReportedOutcome, Succeeded
from compute_orchestrator.domain.retry import Failed, Obeyed, Released
from compute_orchestrator.domain.values import JobId
from tests.builders import lease_key, running_job
from tests.clocks import START

PICTURE = {
    "create: - -> queued",
    "claim: queued -> running",
    "cancel: queued -> cancelled",
    "succeed: running -> succeeded",
    "fail: running -> queued",
    "fail: running -> failed",
    "fail: running -> exhausted",
    "fail: running -> cancelled",
    "release: running -> queued",
    "release: running -> cancelled",
    "obey: running -> cancelled",
    "lose: running -> queued",
    "lose: running -> exhausted",
    "lose: running -> cancelled",
    "cancel: running -> cancelled",
    "retry: succeeded -> queued",
    "retry: failed -> queued",
    "retry: exhausted -> queued",
    "retry: cancelled -> queued",
}
EVERY_MOVE = list(product([None, *Status], Action, Status))


def drawn(from_status: Status | None, action: Action, to_status: Status) -> str:
    return f"{action}: {from_status or '-'} -> {to_status}"


def step(from_status: Status | None, action: Action, to_status: Status) -> Step:
    return Step(
        job_id=JobId(1),
        queue="default",
        action=action,
        from_status=from_status,
        to_status=to_status,
        actor="w",
        at=START,
        attempt=1,
    )


def test_the_table_is_the_picture() -> None:
    table = {
        drawn(from_status, action, to_status)
        for (from_status, action), to_statuses in TRANSITIONS.items()
        for to_status in to_statuses
    }
    assert table == PICTURE


def test_every_other_move_is_refused() -> None:
    for move in EVERY_MOVE:
        assert allows(*move) is (drawn(*move) in PICTURE)


def test_a_step_can_be_made_only_of_a_known_move() -> None:
    for move in EVERY_MOVE:
        if drawn(*move) in PICTURE:
            assert step(*move).to_status is move[2]
        else:
            with pytest.raises(ValueError, match=f"no {move[1]} from"):
                step(*move)


def test_a_job_is_made_once_and_by_create_alone() -> None:
    assert [action for from_status, action in TRANSITIONS if from_status is None] == [Action.CREATE]
    assert [place for place, action in TRANSITIONS if action is Action.CREATE] == [None]


def test_only_a_retry_leaves_a_final_status() -> None:
    ways_out = {(place, action) for place, action in TRANSITIONS if place in FINAL}
    assert ways_out == {(place, Action.RETRY) for place in FINAL}


def test_a_job_starts_to_run_by_a_claim_alone() -> None:
    ways_in = {move for move, places in TRANSITIONS.items() if Status.RUNNING in places}
    assert ways_in == {(Status.QUEUED, Action.CLAIM)}


def test_every_status_is_reached_and_every_action_is_used() -> None:
    assert set().union(*TRANSITIONS.values()) == set(Status)
    assert {action for _, action in TRANSITIONS} == set(Action)


@given(st.lists(st.sampled_from(list(product(Action, Status))), max_size=40))
def test_no_sequence_of_actions_leaves_the_table(wishes: list[tuple[Action, Status]]) -> None:
    """Whoever writes down only the steps that can be made has walked along the picture."""
    status: Status | None = None
    for action, to_status in wishes:
        try:
            made = step(status, action, to_status)
        except ValueError:
            continue
        assert drawn(status, action, to_status) in PICTURE
        status = made.to_status


@pytest.mark.parametrize(
    ("outcome", "action"),
    [
        (Succeeded(), Action.SUCCEED),
        (Failed(), Action.FAIL),
        (Released(), Action.RELEASE),
        (Obeyed(), Action.OBEY),
    ],
)
def test_a_report_is_told_by_what_was_reported(outcome: ReportedOutcome, action: Action) -> None:
    assert Report(lease_key(running_job()), "w", outcome).action is action
