"""The SQL and the table of moves can't drift apart.

Every (status, action) pair is tried twice on every store: through the services, in all the ways in
which the action can end, and on the statements alone, whose WHERE must hold when nobody looked
before. What comes of it is compared with `TRANSITIONS`; a refused move changes nothing.
"""

import math
from collections.abc import Awaitable, Callable
from contextlib import suppress
from itertools import product
from typing import Any, NamedTuple

import pytest

from compute_orchestrator.db.engine import Store
from compute_orchestrator.db.sessions import WriteSession
from compute_orchestrator.db.statements.cancel import cancel_queued
from compute_orchestrator.db.statements.claim import claim_jobs
from compute_orchestrator.db.statements.leave import Leaving, leave_running
from compute_orchestrator.db.statements.report import Success, succeed
from compute_orchestrator.db.statements.retry import retry_final
from compute_orchestrator.domain.errors import Conflict
from compute_orchestrator.domain.job import Job
from compute_orchestrator.domain.lease import LeaseKey
from compute_orchestrator.domain.lifecycle import FINAL, TRANSITIONS, Action, Status
from compute_orchestrator.domain.report import Report, ReportedOutcome, Succeeded
from compute_orchestrator.domain.retry import (
    Decision,
    Failed,
    Lost,
    Obeyed,
    Outcome,
    Released,
    decide,
)
from compute_orchestrator.domain.values import JobId, LeaseToken
from compute_orchestrator.services.operations import CancelCall, RetryCall
from compute_orchestrator.services.transactions import Transactions
from compute_orchestrator.services.wakeups import Wakeups
from tests.builders import claim_request, create_call, lease_key, report
from tests.store.house import INTERVAL_SECONDS, House, Rows, job_row, trail

LEASE_SECONDS = 6
NEVER_SEEN = LeaseToken("0" * 32)

CANCEL_REQUESTED = "cancel requested"
NO_RETRIES = "no retries"
RETRIES_USED = "retries used"
WITH_RETRIES = "with retries"
KINDS = (WITH_RETRIES, NO_RETRIES, RETRIES_USED, CANCEL_REQUESTED)


class Staged(NamedTuple):
    """A job in its place, alone in its queue, and the last lease that it was under."""

    job_id: JobId
    lease: LeaseKey
    queue: str


async def stage(
    house: House, status: Status, kind: str = WITH_RETRIES, queue: str = "default"
) -> Staged:
    """Bring a job to a status, on the ways that users have."""
    max_retries = {NO_RETRIES: 0, RETRIES_USED: 1}.get(kind, 3)
    created = await house.create(max_retries=max_retries, queue=queue, key=f"key of {queue}")
    never = Staged(created.id, LeaseKey(created.id, NEVER_SEEN), queue)
    if status is Status.QUEUED:
        return never
    if status is Status.CANCELLED and kind == NO_RETRIES:  # before anybody claimed it
        await house.operations.cancel(CancelCall(created.id))
        return never
    job = await house.claim("w", queue, lease_seconds=LEASE_SECONDS)
    if kind == RETRIES_USED:
        job = await fail_and_claim(house, job)
    if kind == CANCEL_REQUESTED:
        await house.operations.cancel(CancelCall(job.id))
    return Staged(job.id, lease_key(await END[status](house, job)), queue)


async def fail_and_claim(house: House, job: Job) -> Job:
    await house.reports.report(report(job, Failed(retry_in_seconds=0)))
    return await house.claim("w", job.queue, lease_seconds=LEASE_SECONDS)


# Each ends the job's attempt, or the last of its attempts, which it answers.


async def go_on(house: House, job: Job) -> Job:
    _ = house
    return job


async def end_well(house: House, job: Job) -> Job:
    await house.reports.report(report(job))
    return job


async def end_badly(house: House, job: Job) -> Job:
    await house.reports.report(report(job, Failed(retryable=False)))
    return job


async def exhaust(house: House, job: Job) -> Job:
    for _ in range(job.max_retries - job.retry_count):
        job = await fail_and_claim(house, job)
    await lose_leases(house)
    return job


async def lose_leases(house: House) -> None:
    """The reaper watches for one lease, with as few passes as it may make."""
    await house.reaper.reap_once()
    for _ in range(math.ceil(LEASE_SECONDS / (2 * INTERVAL_SECONDS))):
        house.clock.move(2 * INTERVAL_SECONDS)
        await house.reaper.reap_once()


async def cancel(house: House, job: Job) -> Job:
    await house.operations.cancel(CancelCall(job.id, force=True))
    return job


END: dict[Status, Callable[[House, Job], Awaitable[Job]]] = {
    Status.RUNNING: go_on,
    Status.SUCCEEDED: end_well,
    Status.FAILED: end_badly,
    Status.EXHAUSTED: exhaust,
    Status.CANCELLED: cancel,
}


# What the services do, in all the ways in which an action can end.


def reporting(outcome: ReportedOutcome) -> Callable[[House, Staged], Awaitable[Any]]:
    async def do(house: House, staged: Staged) -> None:
        await house.reports.report(Report(staged.lease, "w", outcome))

    return do


async def do_create(house: House, staged: Staged) -> None:
    created = await house.jobs.create(create_call(key=f"key of {staged.queue}"))
    assert (created.jobs[0].id, created.new) == (staged.job_id, False)


async def do_claim(house: House, staged: Staged) -> None:
    await house.claims.claim(claim_request("w", staged.queue))


async def do_lose(house: House, _staged: Staged) -> None:
    await lose_leases(house)


async def do_cancel(house: House, staged: Staged) -> None:
    await house.operations.cancel(CancelCall(staged.job_id, force=True))


async def do_retry(house: House, staged: Staged) -> None:
    await house.operations.retry(RetryCall(staged.job_id, again=True))


DOINGS: dict[Action, list[Callable[[House, Staged], Awaitable[Any]]]] = {
    Action.CREATE: [do_create],
    Action.CLAIM: [do_claim],
    Action.SUCCEED: [reporting(Succeeded())],
    Action.FAIL: [reporting(Failed()), reporting(Failed(retryable=False))],
    Action.RELEASE: [reporting(Released())],
    Action.OBEY: [reporting(Obeyed())],
    Action.LOSE: [do_lose],
    Action.CANCEL: [do_cancel],
    Action.RETRY: [do_retry],
}


def possible(status: Status, kind: str) -> bool:
    """Some kinds of a job can't come to some statuses."""
    if kind == CANCEL_REQUESTED:
        return status in (Status.RUNNING, Status.SUCCEEDED, Status.CANCELLED)
    if kind == RETRIES_USED:
        return status is not Status.QUEUED
    return True


def seen(events: Rows) -> tuple[Any, ...]:
    """The last step as the table names it."""
    return tuple(events[-1][name] for name in ("from_status", "action", "to_status"))


@pytest.mark.parametrize(("status", "action"), list(product(Status, Action)))
async def test_services_make_the_moves_of_the_table_and_no_others(
    store: Store, house: House, status: Status, action: Action
) -> None:
    reached: set[Status] = set()
    ways = [way for way in product(KINDS, DOINGS[action]) if possible(status, way[0])]
    for number, (kind, doing) in enumerate(ways):
        staged = await stage(house, status, kind, f"queue {number}")
        row, events = await job_row(store, staged.job_id), await trail(store, staged.job_id)
        assert row["status"] == status
        with suppress(Conflict):
            await doing(house, staged)
        new_row, new_events = await job_row(store, staged.job_id), await trail(store, staged.job_id)
        if new_events == events:
            assert new_row == row
        else:
            assert new_events[:-1] == events
            assert seen(new_events) == (status, action, new_row["status"])
            reached.add(Status(new_row["status"]))
    assert reached == TRANSITIONS.get((status, action), frozenset())


# What the statements do when nobody looked before.


def leaving(action: Action, outcome: Outcome) -> Callable[[WriteSession, Job], Awaitable[Any]]:
    async def do(session: WriteSession, job: Job) -> None:
        decision = decide(job, outcome, job.updated_at, 0.0)
        assert decision.action is action
        await leave_running(session, [Leaving(job, decision, "w")])

    return do


async def state_succeed(session: WriteSession, job: Job) -> None:
    await succeed(session, [Success(LeaseKey(job.id, job.lease_token or NEVER_SEEN), "w", None)])


async def state_claim(session: WriteSession, job: Job) -> None:
    await claim_jobs(session, [claim_request()], [job.queue], 60)


async def state_cancel(session: WriteSession, job: Job) -> None:
    """A waiting job by its own statement, a running one by way of `leave`."""
    if not await cancel_queued(session, [job]):
        decision = Decision(
            Action.CANCEL, Status.CANCELLED, job.retry_count, job.release_count, job.run_at
        )
        await leave_running(session, [Leaving(job, decision, "operator")])


async def state_retry(session: WriteSession, job: Job) -> None:
    await retry_final(session, [job])


STATEMENTS: dict[Action, Callable[[WriteSession, Job], Awaitable[Any]]] = {
    Action.CLAIM: state_claim,
    Action.SUCCEED: state_succeed,
    Action.FAIL: leaving(Action.FAIL, Failed()),
    Action.RELEASE: leaving(Action.RELEASE, Released()),
    Action.OBEY: leaving(Action.OBEY, Obeyed()),
    Action.LOSE: leaving(Action.LOSE, Lost("lease-expired")),
    Action.CANCEL: state_cancel,
    Action.RETRY: state_retry,
}


@pytest.mark.parametrize(("status", "action"), list(product(Status, STATEMENTS)))
async def test_statements_make_the_moves_of_the_table_and_no_others(
    store: Store, house: House, status: Status, action: Action
) -> None:
    staged = await stage(house, status)
    row, events = await job_row(store, staged.job_id), await trail(store, staged.job_id)
    job = (await house.jobs.get(staged.job_id))._replace(lease_token=staged.lease.lease_token)
    async with Transactions(store, Wakeups()).write() as session:
        await STATEMENTS[action](session, job)
    new_row, new_events = await job_row(store, staged.job_id), await trail(store, staged.job_id)
    allowed = TRANSITIONS.get((status, action))
    if allowed is None:
        assert (new_row, new_events) == (row, events)
    else:
        assert new_row["status"] in allowed
        assert new_events[:-1] == events
        assert seen(new_events) == (status, action, new_row["status"])


@pytest.mark.parametrize("status", Status)
async def test_a_job_is_finished_exactly_in_a_final_status(
    store: Store, house: House, status: Status
) -> None:
    row = await job_row(store, (await stage(house, status)).job_id)
    assert (row["finished_at"] is not None) == (status in FINAL)
    lease = [row[name] for name in ("lease_token", "lease_expires_at", "held_seconds")]
    assert [value is not None for value in lease] == [status is Status.RUNNING] * 3
