"""The demo's proof catches planted faults, and its report adds up what is stored."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from compute_orchestrator.cli.demo_report import (
    Event,
    Expected,
    StoredJob,
    add_up,
    find_faults,
)
from compute_orchestrator.cli.demo_tasks import FileCount

START = datetime(2026, 1, 1, tzinfo=UTC)

FROM = {"create": None, "claim": "queued"}
ACTOR = {"create": "producer", "lose": "reaper"}

# Each step as (action, to_status, actor); one second apart.
STRAIGHT = [("create", "queued", ""), ("claim", "running", "a"), ("succeed", "succeeded", "a")]
RECOVERED = [
    ("create", "queued", ""),
    ("claim", "running", "killed"),
    ("lose", "queued", ""),
    ("claim", "running", "b"),
    ("succeed", "succeeded", "b"),
]

Steps = Sequence[tuple[str, str, str]]
World = tuple[Expected, list[StoredJob]]


def trail(steps: Steps, first_id: int = 1) -> list[Event]:
    return [
        Event(
            id=first_id + number,
            action=action,
            from_status=FROM.get(action, "running"),
            to_status=to_status,
            actor=actor or ACTOR[action],
            at=START + timedelta(seconds=number),
        )
        for number, (action, to_status, actor) in enumerate(steps)
    ]


def job(job_id: int, path: str, steps: Steps) -> StoredJob:
    return StoredJob(
        id=job_id,
        path=path,
        status="succeeded",
        retry_count=sum(action == "lose" for action, _, _ in steps),
        result=FileCount(
            path=path, lines=10, functions=2, classes=1, imports=3, modules=("os", path)
        ),
        events=trail(steps, first_id=job_id * 100),
    )


def good() -> World:
    jobs = [job(1, "a.py", STRAIGHT), job(2, "b.py", RECOVERED), job(3, "c.py", STRAIGHT)]
    return Expected({it.path: it.id for it in jobs}, "killed", [2]), jobs


def with_job(number: int, **changes: object) -> World:
    """The good world, with one job changed."""
    expected, jobs = good()
    jobs[number] = replace(jobs[number], **changes)
    return expected, jobs


def with_steps(*steps: tuple[str, str, str]) -> World:
    """The good world, with another trail for the first job."""
    return with_job(0, events=trail(steps))


def with_event(job_number: int, event_number: int, **changes: object) -> World:
    """The good world, with one event changed."""
    events = list(good()[1][job_number].events)
    events[event_number] = replace(events[event_number], **changes)
    return with_job(job_number, events=events)


def without_job() -> World:
    expected, jobs = good()
    return expected, jobs[1:]


def with_stray_job() -> World:
    expected, jobs = good()
    return expected, [*jobs, job(9, "z.py", STRAIGHT)]


def with_second_job_of_a_file() -> World:
    expected, jobs = good()
    return expected, [*jobs, job(9, "a.py", STRAIGHT)]


def with_one_job_for_two_files() -> World:
    expected, jobs = good()
    job_of_file = {**expected.job_of_file, "d.py": 1}
    return replace(expected, job_of_file=job_of_file), jobs


def with_job_listed_twice() -> World:
    expected, jobs = good()
    return expected, [*jobs, jobs[0]]


def with_result_of_another() -> World:
    result = good()[1][1].result
    return with_job(0, result=result)


def with_nothing_held() -> World:
    expected, jobs = good()
    return replace(expected, held_when_killed=[]), jobs


def with_held_job_never_lost() -> World:
    expected, jobs = good()
    return replace(expected, held_when_killed=[2, 3]), jobs


def with_lost_job_done_by_the_dead() -> World:
    steps = [*RECOVERED[:3], ("claim", "running", "killed"), ("succeed", "succeeded", "killed")]
    return with_job(1, events=trail(steps))


def test_a_good_run_has_no_faults() -> None:
    assert find_faults(*good()) == []


@pytest.mark.parametrize(
    ("world", "said"),
    [
        pytest.param(without_job, "job 1 (a.py) was accepted and is lost", id="lost job"),
        pytest.param(with_stray_job, "job 9 is stored, but was never accepted", id="stray job"),
        pytest.param(with_second_job_of_a_file, "a.py has two jobs", id="two jobs of a file"),
        pytest.param(with_second_job_of_a_file, "a.py has two results", id="two results"),
        pytest.param(with_one_job_for_two_files, "accepted as the same job", id="shared job"),
        pytest.param(with_job_listed_twice, "job 1 is stored twice", id="job listed twice"),
        pytest.param(
            lambda: with_job(0, path="d.py"), "has the result of a.py", id="another payload"
        ),
        pytest.param(
            lambda: with_job(0, path="b.py"), "job 1 stands for b.py", id="a file's other job"
        ),
        pytest.param(
            with_result_of_another, "job 1 (a.py) has the result of b.py", id="result of another"
        ),
        pytest.param(
            lambda: with_job(0, result=None), "3 jobs were accepted, and there are 2", id="count"
        ),
        pytest.param(
            lambda: with_job(0, result=None), "job 1 (a.py): has no result", id="no result"
        ),
        pytest.param(
            lambda: with_job(0, status="failed"), "job 1 (a.py): is failed", id="another status"
        ),
        pytest.param(
            lambda: with_job(0, status="failed"),
            "the trail ends in succeeded, the job is failed",
            id="trail ends elsewhere",
        ),
        pytest.param(
            lambda: with_job(0, events=[]), "the trail ends in None", id="a job without a trail"
        ),
    ],
)
def test_a_job_or_result_lost_or_doubled_is_caught(world: Callable[[], World], said: str) -> None:
    assert_caught(world(), said)


@pytest.mark.parametrize(
    ("world", "said"),
    [
        pytest.param(
            lambda: with_steps(*STRAIGHT[:2], ("claim", "running", "b"), STRAIGHT[2]),
            "b claimed it while a held it",
            id="second claim under a lease",
        ),
        pytest.param(
            lambda: with_event(1, 3, at=START),
            "b claimed it before the last lease ended",
            id="overlap by time",
        ),
        pytest.param(
            lambda: with_event(0, 2, actor="b"),
            "b reported under the lease of a",
            id="report of another",
        ),
        pytest.param(
            lambda: with_steps(STRAIGHT[0], STRAIGHT[2]),
            "ends a lease that was never given",
            id="report without a claim",
        ),
    ],
)
def test_two_holders_of_one_job_are_caught(world: Callable[[], World], said: str) -> None:
    assert_caught(world(), said)


@pytest.mark.parametrize(
    ("world", "said"),
    [
        pytest.param(
            lambda: with_event(0, 0, from_status="queued"),
            "starts elsewhere than the one before it ended (None)",
            id="no beginning",
        ),
        pytest.param(
            lambda: with_event(0, 2, from_status="queued"),
            "starts elsewhere than the one before it ended (running)",
            id="a gap",
        ),
        pytest.param(
            lambda: with_event(0, 1, action="retry"), "is no allowed move", id="forbidden move"
        ),
        pytest.param(
            lambda: with_event(0, 1, action="borrow"), "is no allowed move", id="unknown action"
        ),
        pytest.param(
            lambda: with_event(0, 1, to_status=None), "is no allowed move", id="no status"
        ),
        pytest.param(
            lambda: with_event(0, 2, id=100), "event 100 comes after event 101", id="ids fall"
        ),
        pytest.param(
            lambda: with_event(0, 2, at=START), "event 102 is earlier than event 101", id="times"
        ),
        pytest.param(
            lambda: with_steps(*STRAIGHT, *STRAIGHT[1:]), "succeeded 2 times", id="two successes"
        ),
    ],
)
def test_an_invalid_path_is_caught(world: Callable[[], World], said: str) -> None:
    assert_caught(world(), said)


@pytest.mark.parametrize(
    ("world", "said"),
    [
        pytest.param(with_nothing_held, "no job was held by killed", id="nothing held"),
        pytest.param(with_held_job_never_lost, "job 3 was held by killed", id="never taken"),
        pytest.param(
            with_lost_job_done_by_the_dead, "job 2 was held by killed", id="done by the dead"
        ),
    ],
)
def test_a_kill_without_a_recovery_is_caught(world: Callable[[], World], said: str) -> None:
    assert_caught(world(), said)


def assert_caught(world: World, said: str) -> None:
    faults = find_faults(*world)
    assert any(said in fault for fault in faults), faults


def test_the_report_adds_up_what_is_stored() -> None:
    _, jobs = good()
    fault = FileCount(path="c.py", lines=5, fault="SyntaxError: no")
    jobs[2] = replace(jobs[2], result=fault)
    report = add_up(jobs)
    assert (report.jobs, report.recovered, report.retries, report.unparsed) == (3, 1, 1, 1)
    assert (report.lines, report.functions, report.classes, report.imports) == (25, 4, 2, 6)
    assert report.jobs_per_second == 3 / 4  # the recovered one ended after four seconds
    assert report.top_modules == [("os", 2), ("a.py", 1), ("b.py", 1)]


def test_the_report_names_twenty_modules_equal_ones_by_name() -> None:
    modules = tuple(f"m{number:02}" for number in range(30))
    result = FileCount(path="a.py", lines=1, modules=modules)
    report = add_up([replace(job(1, "a.py", STRAIGHT), result=result)])
    assert [name for name, _ in report.top_modules] == list(modules[:20])


def test_the_report_of_nothing_is_zero() -> None:
    report = add_up([])
    assert (report.jobs, report.jobs_per_second, report.top_modules) == (0, 0, [])
