"""The checker of histories finds nothing in a good one, and each fault that is planted in a copy.

What it finds when the product itself is faulty: `test_planted_faults.py`.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.clocks import ManualClock
from tests.conftest import running_world, settings_for
from tests.promises.evidence import Evidence, Outage
from tests.promises.history import Call, Recorder, create, read_history
from tests.promises.history_checker import faults
from tests.promises.short_history import Edited, Play, play_all
from tests.stores import put_empty_store

LONG = 3_600_000_000
"""An hour in microseconds."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def good(tmp_path_factory: pytest.TempPathFactory) -> Evidence:
    folder = tmp_path_factory.mktemp("good")
    settings = settings_for(put_empty_store(folder / "orc.db"))
    async with running_world(settings, ManualClock()) as world:
        return await play_all(Play(world, folder))


Plant = Callable[[Edited], None]
PLANTS: list[Any] = []


def caught_as(words: str) -> Callable[[Plant], Plant]:
    """The plant is one of the faults, and the checker's sentence has these words."""

    def add(plant: Plant) -> Plant:
        PLANTS.append(pytest.param(plant, words, id=plant.__name__))
        return plant

    return add


@caught_as("was answered to done, and is gone")
def a_job_is_dropped(edited: Edited) -> None:
    edited.drop("done")


@caught_as("has a trail and no row")
def a_row_is_dropped(edited: Edited) -> None:
    edited.jobs.remove(edited.job("done"))


@caught_as("was created more than once")
def a_key_makes_two_jobs(edited: Edited) -> None:
    repeated = edited.call("done", "create", status=200)
    edited.change_call(repeated, status=201)


@caught_as("nobody created it")
def a_job_comes_from_nowhere(edited: Edited) -> None:
    edited.change_job("waiting", payload='"unheard of"')


@caught_as("had made job")
def a_key_has_two_rows(edited: Edited) -> None:
    edited.change_job("waiting", payload='"done"')


@caught_as("before it was sent, or after it was answered")
def a_job_is_older_than_its_create(edited: Edited) -> None:
    created = edited.event("done", "create")
    edited.change_event(created, at=created.at - LONG)


@caught_as("is running in the end")
def a_job_is_left_running(edited: Edited) -> None:
    edited.events.remove(edited.event("done", "succeed"))
    edited.change_job("done", status="running")


@caught_as("its trail does not end there")
def a_status_has_no_event(edited: Edited) -> None:
    edited.change_job("broken", status="exhausted")


@caught_as("claim starts from queued, but it was running")
def a_lease_ends_unseen(edited: Edited) -> None:
    edited.events.remove(edited.event("replaced", "lose"))


@caught_as("release from running to succeeded is no move")
def a_move_is_not_in_the_table(edited: Edited) -> None:
    edited.change_event(edited.event("done", "succeed"), action="release")


@caught_as("is earlier than the step before it")
def a_step_is_out_of_order(edited: Edited) -> None:
    edited.change_event(edited.event("done", "succeed"), at=0)


@caught_as("counts attempt 2, after 1 claims")
def an_attempt_is_counted_twice(edited: Edited) -> None:
    edited.change_event(edited.event("done", "claim"), attempt=2)


@caught_as("counts 0 retries of 1, its trail 1")
def a_retry_is_not_counted(edited: Edited) -> None:
    edited.change_job("failing", retry_count=0)


@caught_as("exhausted after 1 retries of 3")
def a_job_is_exhausted_early(edited: Edited) -> None:
    edited.change_job("failing", max_retries=3)


@caught_as("begins 0 times in the trail")
def a_claim_is_not_in_the_trail(edited: Edited) -> None:
    edited.events.remove(edited.event("done", "claim"))


@caught_as("is another one than was answered")
def a_claim_is_another_ones(edited: Edited) -> None:
    edited.change_event(edited.event("done", "claim"), actor="bert")


@caught_as("began, and nobody had asked for it")
def a_lease_is_given_unasked(edited: Edited) -> None:
    edited.forget("claim", "bert")


@caught_as("had ended, and a heartbeat was taken")
def a_stale_heartbeat_is_taken(edited: Edited) -> None:
    stale = edited.call("replaced", "heartbeat", "anna", status=409)
    expiry = edited.call("replaced", "heartbeat", "bert").answer["lease_expires_at"]
    edited.change_call(stale, status=200, answer={"lease_expires_at": expiry})


@caught_as("was held, and a heartbeat was refused")
def a_living_heartbeat_is_refused(edited: Edited) -> None:
    edited.change_call(edited.call("done", "heartbeat"), status=409)


@caught_as("is shorter than was asked for")
def a_lease_is_cut_short(edited: Edited) -> None:
    claimed = edited.call("done", "claim")
    edited.change_answer(claimed, lease_expires_at=claimed.answer["locked_at"])


@caught_as("ends 2 times: ['succeed', 'succeed']")
def a_report_is_taken_twice(edited: Edited) -> None:
    edited.events.append(edited.event("done", "succeed"))


@caught_as("has a report that was taken and is not in the trail")
def a_stale_report_is_taken(edited: Edited) -> None:
    edited.change_call(edited.call("replaced", "report", "anna", status=409), status=200)


@caught_as("was reported, and that was refused later")
def a_repeated_report_is_refused(edited: Edited) -> None:
    refusal = edited.call("replaced", "report", "anna", status=409).answer
    edited.change_call(edited.call("done", "report"), status=409, answer=refusal)


@caught_as("was not lost, and a report was told so")
def a_living_report_is_refused(edited: Edited) -> None:
    refusal = edited.call("replaced", "report", "anna", status=409).answer
    edited.change_call(edited.call("broken", "report"), status=409, answer=refusal)


@caught_as("ends by succeed, which nobody asked for")
def a_report_comes_from_nowhere(edited: Edited) -> None:
    edited.forget("report", "bert")


@caught_as("ends by cancel, which nobody asked for")
def a_job_is_cancelled_under_its_worker(edited: Edited) -> None:
    edited.forget("force", "producer")


@caught_as("obeys, and nobody had asked to cancel")
def a_worker_obeys_nobody(edited: Edited) -> None:
    edited.forget("cancel", "producer")


@caught_as("nobody asked to cancel it")
def a_waiting_job_is_cancelled_unasked(edited: Edited) -> None:
    edited.forget("cancel", "producer")


@caught_as("s early")
def a_lease_is_reaped_early(edited: Edited) -> None:
    lost = edited.event("replaced", "lose")
    edited.change_event(lost, at=edited.event("replaced", "claim").at + 1_000_000)


@caught_as("after the store was back: less than its length")
def a_lease_is_taken_right_after_an_outage(edited: Edited) -> None:
    lost = edited.event("replaced", "lose").at
    edited.outages.append(Outage(lost - 3_000_000, lost - 1_000_000))


@caught_as("against what its cancel was answered")
def a_cancelled_job_is_run_again(edited: Edited) -> None:
    stopped = edited.call("stopped", "cancel")
    edited.change_call(stopped, answered=edited.event("stopped", "create").at)


@caught_as("s before the end of")
def two_leases_overlap(edited: Edited) -> None:
    """In what their holders were told alone: the first was promised more."""
    edited.change_answer(
        edited.call("replaced", "heartbeat", "anna"),
        lease_expires_at=edited.call("replaced", "heartbeat", "bert").answer["lease_expires_at"],
    )


@caught_as("nobody's heartbeat left its checkpoint")
def a_refused_heartbeat_leaves_its_checkpoint(edited: Edited) -> None:
    edited.change_job("replaced", checkpoint='"anna\'s, too late"')


@caught_as("nobody reported its result")
def a_refused_report_leaves_its_result(edited: Edited) -> None:
    edited.change_job("replaced", result='"anna\'s, too late"')


@caught_as("bert was answered 500")
def a_server_fails_over_a_call(edited: Edited) -> None:
    edited.change_call(edited.call("broken", "report"), status=500)


@caught_as("the clock went back while anna looked")
def the_clock_is_set_back(edited: Edited) -> None:
    last = [call for call in edited.calls if call.by == "anna"][-1]
    edited.change_call(last, sent=last.sent - LONG)


def test_a_good_history_has_no_fault(good: Evidence) -> None:
    assert faults(good) == []


@pytest.mark.parametrize(("plant", "words"), PLANTS)
def test_a_planted_fault_is_caught(good: Evidence, plant: Plant, words: str) -> None:
    edited = Edited(good)
    plant(edited)
    assert [fault for fault in edited.faults() if words in fault]


def test_every_call_that_was_sent_is_read_also_the_last_of_a_caller_that_was_killed(
    tmp_path: Path,
) -> None:
    times = iter(range(10, 100, 10))
    recorder = Recorder(tmp_path, "anna", lambda: next(times))
    first, second = create("one"), create("two")
    recorder.answered(recorder.sent(first), 201, {"id": 1})
    recorder.sent(second)
    recorder.answered(recorder.sent(second), 503, {"code": "store-unavailable"})
    recorder.close()
    with (tmp_path / "anna.jsonl").open("ab") as torn:
        torn.write(b'{"call": 4, "at": 60, "ki')
    assert read_history(tmp_path) == [
        Call("anna", first, 10, 20, 201, {"id": 1}),
        Call("anna", second, 30),
        Call("anna", second, 40, 50, 503, {"code": "store-unavailable"}),
    ]
