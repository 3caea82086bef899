"""Reports: the fence of every way out of `running`, and what the trail remembers of it."""

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compute_orchestrator.db.engine import Store
from compute_orchestrator.db.statements.claim import claim_jobs
from compute_orchestrator.db.statements.create import create_jobs
from compute_orchestrator.db.statements.leave import Leaving, leave_running
from compute_orchestrator.db.statements.report import Success, held_jobs, left_before, succeed
from compute_orchestrator.domain.errors import InvalidTransition, JobNotFound, LeaseLost
from compute_orchestrator.domain.lease import LeaseKey
from compute_orchestrator.domain.lifecycle import Action, Status
from compute_orchestrator.domain.report import Report, ReportedOutcome, Succeeded
from compute_orchestrator.domain.retry import Failed, Obeyed, Released, decide
from compute_orchestrator.domain.values import JobId, JsonText, LeaseToken, Micros, micros
from compute_orchestrator.schemas.values import to_json
from compute_orchestrator.services.operations import CancelCall
from compute_orchestrator.services.reports import REASON_LENGTH, short_reason
from tests.builders import claim_request, lease_key, new_job, report
from tests.clocks import START
from tests.store.house import House, everything, job_row, trail
from tests.store.undoing import one_store, undone

FOREIGN = LeaseToken("f" * 32)

OUTCOMES: dict[str, ReportedOutcome] = {
    "succeed": Succeeded(JsonText("1")),
    "fail": Failed(retry_in_seconds=0),
    "release": Released(),
    "obey": Obeyed(),
}
named_outcomes = pytest.mark.parametrize("outcome", OUTCOMES.values(), ids=OUTCOMES)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)


# The fence.


@named_outcomes
async def test_a_report_under_a_foreign_token_changes_nothing(
    store: Store, house: House, outcome: ReportedOutcome
) -> None:
    job = await house.running()
    await house.operations.cancel(CancelCall(job.id))  # so that only the token is wrong
    before = await everything(store)
    with pytest.raises(LeaseLost) as lost:
        await house.reports.report(Report(LeaseKey(job.id, FOREIGN), "thief", outcome))
    assert lost.value.holder == "w"
    assert await everything(store) == before


@named_outcomes
async def test_a_report_under_the_token_of_another_job_changes_nothing(
    store: Store, house: House, outcome: ReportedOutcome
) -> None:
    job, other = await house.running(), await house.running()
    before = await everything(store)
    with pytest.raises(LeaseLost):
        await house.reports.report(
            Report(LeaseKey(job.id, lease_key(other).lease_token), "w", outcome)
        )
    assert await everything(store) == before


@named_outcomes
async def test_a_late_report_never_ends_the_run_of_the_next_holder(
    store: Store, house: House, outcome: ReportedOutcome
) -> None:
    stale = await house.running(lease_seconds=6)
    assert (await house.pass_time(10)).requeued == 1
    await house.pass_time(10)
    await house.claim("second")
    before = await everything(store)
    with pytest.raises(LeaseLost):
        await house.reports.report(report(stale, outcome))
    assert await everything(store) == before


@named_outcomes
async def test_a_report_for_no_job_says_so(house: House, outcome: ReportedOutcome) -> None:
    with pytest.raises(JobNotFound):
        await house.reports.report(Report(LeaseKey(JobId(99), FOREIGN), "w", outcome))


async def test_good_and_bad_reports_share_a_statement(store: Store) -> None:
    async with undone(store) as session:
        await create_jobs(session, [new_job()] * 3)
        (jobs,) = await claim_jobs(session, [claim_request(limit=3)], ["default"], 60)
        first, second, third = (job for job in jobs if job)
        foreign = LeaseKey(second.id, FOREIGN)
        finished = await succeed(
            session,
            [
                Success(lease_key(first), "w", JsonText("1")),
                Success(foreign, "thief", JsonText("2")),
            ],
        )
        decision = decide(third, Failed(retryable=False), START, 0.0)
        left = await leave_running(
            session,
            [
                Leaving(second._replace(lease_token=FOREIGN), decision, "thief"),
                Leaving(third, decision, "w"),
            ],
        )
        held = await held_jobs(session, [lease_key(job) for job in (first, second, third)])
        steps = [(step.job_id, step.to_status) for step in session.steps]
    assert set(finished) == {first.id}
    assert set(left) == {third.id}
    assert set(held) == {lease_key(second)}
    assert steps[-2:] == [(first.id, Status.SUCCEEDED), (third.id, Status.FAILED)]


# Repeats.


@named_outcomes
async def test_a_report_that_was_taken_may_be_repeated_without_a_second_effect(
    store: Store, house: House, outcome: ReportedOutcome
) -> None:
    job = await house.running()
    if isinstance(outcome, Obeyed):
        await house.operations.cancel(CancelCall(job.id))
    first = await house.reports.report(report(job, outcome))
    before = await everything(store)
    assert await house.reports.report(report(job, outcome)) == first
    assert await everything(store) == before


async def test_a_repeated_report_shows_the_job_as_it_stands_now(house: House) -> None:
    job = await house.running()
    await house.reports.report(report(job, Failed(retry_in_seconds=0)))
    await house.claim("second")
    again = await house.reports.report(report(job, Failed(retryable=False)))
    assert (again.status, again.locked_by) == (Status.RUNNING, "second")


async def test_copies_of_a_report_at_the_same_time_have_one_effect(
    store: Store, house: House
) -> None:
    job = await house.running()
    copies = await asyncio.gather(
        *(house.reports.report(report(job, Failed(retry_in_seconds=5))) for _ in range(4))
    )
    assert {one.retry_count for one in copies} == {1}
    assert [step["action"] for step in await trail(store, job.id)] == ["create", "claim", "fail"]


@pytest.mark.parametrize("second", OUTCOMES.values(), ids=OUTCOMES)
@pytest.mark.parametrize("first", OUTCOMES.values(), ids=OUTCOMES)
async def test_another_report_after_the_first_is_refused(
    store: Store, house: House, first: ReportedOutcome, second: ReportedOutcome
) -> None:
    job = await house.running()
    if isinstance(first, Obeyed):
        await house.operations.cancel(CancelCall(job.id))
    taken = await house.reports.report(report(job, first))
    before = await everything(store)
    if type(first) is type(second):
        assert await house.reports.report(report(job, second)) == taken
    else:
        with pytest.raises(InvalidTransition) as refused:
            await house.reports.report(report(job, second))
        assert refused.value.status == taken.status
    assert await everything(store) == before


@named_outcomes
async def test_a_report_after_a_forced_cancel_learns_that_the_lease_is_lost(
    house: House, outcome: ReportedOutcome
) -> None:
    job = await house.running()
    await house.operations.cancel(CancelCall(job.id, force=True))
    with pytest.raises(LeaseLost):
        await house.reports.report(report(job, outcome))


@named_outcomes
async def test_a_report_after_a_release_by_the_server_learns_that_the_lease_is_lost(
    house: House, outcome: ReportedOutcome
) -> None:
    """Also a release, although the trail has one under this token: it was not the worker's."""
    job = await house.running()
    await house.claims.hand_back([job])
    with pytest.raises(LeaseLost):
        await house.reports.report(report(job, outcome))


async def test_a_lease_that_is_handed_back_too_late_is_let_be(store: Store, house: House) -> None:
    job = await house.running()
    await house.operations.cancel(CancelCall(job.id, force=True))
    before = await everything(store)
    await house.claims.hand_back([job])
    assert await everything(store) == before


async def test_a_release_by_the_server_keeps_counts_and_place(store: Store, house: House) -> None:
    job = await house.running()
    house.clock.move(1)
    await house.claims.hand_back([job])
    row = await job_row(store, job.id)
    assert (row["status"], row["release_count"], row["run_at"]) == ("queued", 0, START)
    step = (await trail(store, job.id))[-1]
    assert (step["actor"], step["reason"]) == ("server", "client-gone")


async def test_the_trail_knows_each_lease_by_its_token(house: House) -> None:
    first = await house.running()
    await house.reports.report(report(first, Failed(retry_in_seconds=0)))
    second = await house.claim()
    await house.reports.report(report(second))
    unknown = LeaseKey(first.id, FOREIGN)
    async with house.transactions.write() as session:
        left = await left_before(session, [lease_key(first), lease_key(second), unknown])
    assert {key: one.action for key, one in left.items()} == {
        lease_key(first): Action.FAIL,
        lease_key(second): Action.SUCCEED,
    }


# What is written.


async def test_obeying_what_nobody_asked_for_is_refused(store: Store, house: House) -> None:
    job = await house.running()
    before = await everything(store)
    with pytest.raises(InvalidTransition):
        await house.reports.report(report(job, Obeyed()))
    assert await everything(store) == before


async def test_a_requeued_job_shows_no_holder_and_a_finished_one_its_last(
    store: Store, house: House
) -> None:
    job = await house.running()
    await house.reports.report(report(job, Failed(retry_in_seconds=0)))
    holder = ("locked_by", "locked_at", "last_heartbeat_at")
    lease = ("lease_token", "lease_expires_at", "held_seconds", "request_id", "request_slot")
    row = await job_row(store, job.id)
    assert [row[name] for name in (*holder, *lease)] == [None] * 8
    job = await house.claim("last", request_id="r")
    await house.reports.report(report(job, Failed(retryable=False)))
    row = await job_row(store, job.id)
    assert [row[name] for name in holder] == ["last", START, START]
    assert [row[name] for name in lease] == [None] * 5


async def test_the_error_of_the_last_failure_stays_when_the_job_succeeds(
    store: Store, house: House
) -> None:
    for number in range(2):
        job = await (house.running() if number == 0 else house.claim())
        outcome = Failed(retry_in_seconds=0)
        await house.reports.report(report(job, outcome, error=JsonText(f'{{"n":{number}}}')))
    await house.reports.report(report(await house.claim(), Released(0)))
    await house.reports.report(report(await house.claim(), Succeeded(JsonText("7"))))
    row = await job_row(store, JobId(1))
    assert (row["status"], row["error"], row["result"]) == ("succeeded", '{"n":1}', "7")


async def test_a_retry_in_the_future_is_delayed_and_one_for_now_is_not(
    store: Store, house: House
) -> None:
    later, now = await house.running(), await house.running()
    await house.reports.report(report(later, Failed(retry_in_seconds=0.000001)))
    await house.reports.report(report(now, Failed(retry_in_seconds=0)))
    assert (await job_row(store, later.id))["delayed"] == 1
    assert (await job_row(store, later.id))["run_at"] == START + 1
    assert (await job_row(store, now.id))["delayed"] == 0


@settings(one_store, max_examples=30)
@given(value=json_values)
async def test_json_comes_back_as_the_text_that_it_was(store: Store, value: Any) -> None:
    sent = to_json(value)
    async with undone(store) as session:
        (job,) = await create_jobs(session, [new_job(payload=sent)])
        ((job,),) = await claim_jobs(session, [claim_request()], ["default"], 60)
        assert job.payload == sent
        done = (await succeed(session, [Success(lease_key(job), "w", sent)]))[job.id]
    assert (done.payload, done.result) == (sent, sent)


async def test_a_job_runs_as_long_as_its_lease_was_held(store: Store) -> None:
    async with undone(store) as session:
        await create_jobs(session, [new_job()])
        ((job,),) = await claim_jobs(session, [claim_request()], ["default"], 60)
        session.now = Micros(START + micros(5))
        await succeed(session, [Success(lease_key(job), "w", None)])
        assert session.steps[-1].ran_seconds == 5


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (None, None),
        ("{}", None),
        ('{"type":"Timeout","message":"no answer"}', "Timeout: no answer"),
        ('{"message":"no answer"}', "no answer"),
        ('{"type":"Timeout","message":{"not":"text"}}', "Timeout"),
        ('{"type":1,"traceback":"..."}', None),
        (f'{{"message":"{"x" * 1_000}"}}', "x" * REASON_LENGTH),
    ],
)
def test_the_trail_keeps_a_short_reason(error: str | None, reason: str | None) -> None:
    assert short_reason(None if error is None else JsonText(error)) == reason
