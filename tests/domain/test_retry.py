"""What comes of an attempt that ended: retries, the backoff, releases, and cancelling."""

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from compute_orchestrator.domain.job import Job
from compute_orchestrator.domain.lifecycle import Action, Status, allows
from compute_orchestrator.domain.retry import (
    Failed,
    Lost,
    Obeyed,
    Outcome,
    Released,
    RetryPolicy,
    decide,
)
from compute_orchestrator.domain.values import Micros, micros
from tests.builders import running_job
from tests.clocks import START

LONGEST_SECONDS = 31_536_000.0
NOW = Micros(START + micros(100))

seconds = st.floats(0, LONGEST_SECONDS)
chances = st.floats(0, 1, exclude_max=True)
policies = st.builds(
    RetryPolicy,
    base_seconds=seconds,
    factor=st.floats(0, 1000),
    max_seconds=seconds,
    jitter=st.floats(0, 1),
)
outcomes: st.SearchStrategy[Outcome] = st.one_of(
    st.builds(Failed, retryable=st.booleans(), retry_in_seconds=st.none() | seconds),
    st.builds(Released, st.none() | seconds, st.booleans()),
    st.just(Obeyed()),
    st.builds(Lost, st.sampled_from(["lease-expired", "timeout"])),
)


def after(job: Job, outcome: Outcome, chance: float = 0.0) -> Job:
    """The job as the decision leaves it."""
    decision = decide(job, outcome, NOW, chance)
    return job._replace(
        status=decision.status,
        retry_count=decision.retry_count,
        release_count=decision.release_count,
        run_at=decision.run_at,
    )


def delay(job: Job, outcome: Outcome, chance: float = 0.0) -> float:
    """How many seconds from now a requeued job waits."""
    decision = decide(job, outcome, NOW, chance)
    assert decision.status is Status.QUEUED
    return (decision.run_at - NOW) / micros(1)


@st.composite
def running_jobs(draw: st.DrawFn, *, cancel_requested: bool | None = None) -> Job:
    policy = draw(policies)
    max_retries = draw(st.integers(0, 1000))
    return running_job(
        max_retries=max_retries,
        retry_count=draw(st.integers(0, max_retries)),
        release_count=draw(st.integers(0, 1000)),
        retry_base_seconds=policy.base_seconds,
        retry_factor=policy.factor,
        retry_max_seconds=policy.max_seconds,
        retry_jitter=policy.jitter,
        cancel_requested=draw(st.booleans()) if cancel_requested is None else cancel_requested,
    )


@given(running_jobs(), outcomes, chances)
def test_a_decision_never_leaves_the_table(job: Job, outcome: Outcome, chance: float) -> None:
    decision = decide(job, outcome, NOW, chance)
    assert allows(Status.RUNNING, decision.action, decision.status)


@given(st.integers(0, 20), st.booleans(), st.lists(outcomes, max_size=60))
def test_no_history_spends_more_retries_than_allowed(
    max_retries: int, cancelled: bool, history: list[Outcome]
) -> None:
    """Claim after claim, until the job is final; then an operator takes it back, and on it goes."""
    job = running_job(max_retries=max_retries)
    spent = 0
    for number, outcome in enumerate(history):
        job = job._replace(cancel_requested=cancelled and number % 7 == 6)
        decision = decide(job, outcome, NOW, 0.5)
        assert allows(Status.RUNNING, decision.action, decision.status)
        assert job.retry_count <= decision.retry_count <= max_retries
        requeued = decision.status is Status.QUEUED
        spent += requeued and decision.action in (Action.FAIL, Action.LOSE)
        assert decision.retry_count == spent
        job = after(job, outcome, 0.5)
        if not requeued:
            job = job._replace(retry_count=0, release_count=0)
            spent = 0
        job = job._replace(status=Status.RUNNING)


@pytest.mark.parametrize("outcome", [Failed(), Lost("lease-expired")])
@pytest.mark.parametrize("max_retries", [1, 3, 10])
def test_a_job_may_end_badly_once_more_than_it_has_retries(
    outcome: Outcome, max_retries: int
) -> None:
    job = running_job(max_retries=max_retries)
    statuses: list[Status] = []
    while not statuses or statuses[-1] is Status.QUEUED:
        job = after(job, outcome)
        statuses.append(job.status)
    assert statuses == [Status.QUEUED] * max_retries + [Status.EXHAUSTED]
    assert job.retry_count == max_retries


def test_without_retries_a_failure_is_failed_and_a_lost_lease_exhausted() -> None:
    job = running_job(max_retries=0)
    assert after(job, Failed()).status is Status.FAILED
    assert after(job, Lost("timeout")).status is Status.EXHAUSTED


def test_a_failure_that_is_not_retryable_is_failed_and_spends_nothing() -> None:
    job = after(running_job(retry_count=1), Failed(retryable=False, retry_in_seconds=5))
    assert (job.status, job.retry_count) == (Status.FAILED, 1)


def test_the_reason_of_a_failure_and_of_a_lost_lease_is_told() -> None:
    assert decide(running_job(), Failed("Boom: bang"), NOW, 0).reason == "Boom: bang"
    assert decide(running_job(), Lost("timeout"), NOW, 0).reason == "timeout"
    assert decide(running_job(), Released(reason="client-gone"), NOW, 0).reason == "client-gone"


# The backoff.


def test_the_backoff_grows_by_its_factor_up_to_its_maximum() -> None:
    policy = RetryPolicy(base_seconds=1, factor=2, max_seconds=10, jitter=0)
    delays = [policy.backoff_seconds(n, 0.99) for n in range(1, 7)]
    assert delays == [1, 2, 4, 8, 10, 10]


def test_jitter_comes_on_top_of_the_maximum() -> None:
    policy = RetryPolicy(base_seconds=100, factor=1, max_seconds=10, jitter=0.2)
    assert policy.backoff_seconds(1, 0.0) == 10
    assert policy.backoff_seconds(1, 0.5) == pytest.approx(11)


@given(policies, st.integers(1, 1000), chances)
@example(RetryPolicy(base_seconds=1, factor=1000, max_seconds=7, jitter=0), 1000, 0.0)
@example(RetryPolicy(base_seconds=0, factor=1000, max_seconds=7, jitter=0), 1000, 0.0)
@example(RetryPolicy(base_seconds=3, factor=0, max_seconds=7, jitter=0), 1, 0.0)
def test_the_backoff_is_the_formula_however_large_its_power(
    policy: RetryPolicy, n: int, chance: float
) -> None:
    grown = 0.0
    if policy.base_seconds:
        try:
            grown = policy.base_seconds * policy.factor ** (n - 1)
        except OverflowError:
            grown = policy.max_seconds
    expected = min(grown, policy.max_seconds) * (1 + policy.jitter * chance)
    assert policy.backoff_seconds(n, chance) == expected
    assert 0 <= expected <= 2 * LONGEST_SECONDS


@given(running_jobs(cancel_requested=False), chances)
def test_a_retry_waits_the_backoff_of_its_own_number(job: Job, chance: float) -> None:
    decision = decide(job, Failed(), NOW, chance)
    if decision.status is Status.QUEUED:
        wait = job.retry_policy.backoff_seconds(job.retry_count + 1, chance)
        assert decision.retry_count == job.retry_count + 1
        assert decision.run_at == NOW + micros(wait)


@pytest.mark.parametrize("asked", [0, 0.25, LONGEST_SECONDS])
def test_a_worker_may_name_its_own_delay_and_zero_is_one(asked: float) -> None:
    assert delay(running_job(), Failed(retry_in_seconds=asked), chance=0.9) == asked


# Releases.


def test_a_release_spends_no_retry_and_keeps_its_place_in_line() -> None:
    job = after(running_job(retry_count=2, run_at=START), Released())
    assert (job.status, job.retry_count, job.run_at) == (Status.QUEUED, 2, START)
    assert job.release_count == 1


def test_from_the_third_release_on_a_job_waits_the_backoff_of_that_count() -> None:
    job = running_job(retry_base_seconds=1, retry_factor=2)
    waits: list[float] = []
    for _ in range(5):
        decision = decide(job, Released(), NOW, 0.0)
        waits.append((decision.run_at - NOW) / micros(1))
        job = after(job, Released())
    assert waits == [-100, -100, 4, 8, 16]


def test_a_release_with_a_time_is_taken_as_given_however_often() -> None:
    for count in (0, 2, 50):
        assert delay(running_job(release_count=count), Released(7.5), chance=0.9) == 7.5
        assert delay(running_job(release_count=count), Released(0), chance=0.9) == 0


def test_a_release_by_the_server_is_not_counted_and_never_waits() -> None:
    job = running_job(release_count=9)
    released = after(job, Released(counted=False))
    assert (released.release_count, released.run_at) == (9, job.run_at)


@pytest.mark.parametrize("outcome", [Failed(), Failed(retryable=False), Lost("timeout")])
@pytest.mark.parametrize("max_retries", [0, 3])
def test_a_failure_and_a_lost_lease_start_the_releases_anew(
    outcome: Outcome, max_retries: int
) -> None:
    assert after(running_job(release_count=4, max_retries=max_retries), outcome).release_count == 0


# Cancelling is one-way.


@given(running_jobs(cancel_requested=True), outcomes, chances)
def test_after_a_cancel_request_no_end_leads_back_to_the_queue(
    job: Job, outcome: Outcome, chance: float
) -> None:
    decision = decide(job, outcome, NOW, chance)
    assert decision.status is Status.CANCELLED
    assert decision.retry_count == job.retry_count


@pytest.mark.parametrize(
    ("outcome", "action"),
    [
        (Failed("why"), Action.FAIL),
        (Failed("why", retryable=False), Action.FAIL),
        (Released(reason="why"), Action.RELEASE),
        (Lost("why"), Action.LOSE),
    ],
)
def test_a_cancelled_job_still_tells_what_was_reported(outcome: Outcome, action: Action) -> None:
    decision = decide(running_job(cancel_requested=True), outcome, NOW, 0.0)
    assert (decision.action, decision.reason) == (action, "why")


def test_obeying_ends_as_cancelled() -> None:
    decision = decide(running_job(cancel_requested=True), Obeyed(), NOW, 0.0)
    assert (decision.action, decision.status) == (Action.OBEY, Status.CANCELLED)


@pytest.mark.parametrize(
    ("asked", "whole"), [(0, 0), (1.001, 1_001_000), (0.0000006, 1), (31_536_000, 31_536 * 10**9)]
)
def test_durations_are_rounded_to_whole_microseconds(asked: float, whole: Any) -> None:
    assert micros(asked) == whole
