"""Pages: what a filter lets through, in order, once each, however short the window is."""

import json
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compute_orchestrator.db.engine import Store
from compute_orchestrator.db.sessions import ReadSession
from compute_orchestrator.db.statements.cancel import cancel_queued
from compute_orchestrator.db.statements.claim import claim_jobs
from compute_orchestrator.db.statements.create import create_jobs
from compute_orchestrator.db.statements.read import find_jobs, page_of_events, page_of_jobs
from compute_orchestrator.domain.errors import JobNotFound, ValidationFailed
from compute_orchestrator.domain.job import Job, NewJob
from compute_orchestrator.domain.listing import JobFilter
from compute_orchestrator.domain.report import Succeeded
from compute_orchestrator.domain.retry import Released
from compute_orchestrator.domain.values import JobId, JsonText, Micros
from compute_orchestrator.schemas.values import to_json
from compute_orchestrator.services.jobs import LARGEST_PAGE_BYTES
from tests.builders import claim_request, heartbeat, new_job, report
from tests.clocks import START
from tests.store.house import House
from tests.store.undoing import one_store, undone

NAMES, QUEUES, TAGS, WORKERS = ("a", "b"), ("p", "q"), ("x", "y", "z"), ("v", "w")


def some(values: Sequence[str]) -> st.SearchStrategy[tuple[str, ...]]:
    return st.lists(st.sampled_from(values), max_size=2, unique=True).map(tuple)


new_jobs = st.builds(
    NewJob,
    name=st.sampled_from(NAMES),
    queue=st.sampled_from(QUEUES),
    tags=some(TAGS),
    payload=st.none() | st.integers(0, 6).map(lambda n: JsonText(json.dumps("x" * n))),
)
moments = st.none() | st.integers(-1, 4).map(lambda n: Micros(START + n))
filters = st.builds(
    JobFilter,
    statuses=some(("queued", "running", "cancelled")),
    queues=some(QUEUES),
    names=some(NAMES),
    tags=some(TAGS),
    workers=some((*WORKERS, "nobody")),
    created_after=moments,
    created_before=moments,
    include=st.sampled_from([frozenset[str](), frozenset({"payload"})]),
    newest_first=st.booleans(),
)


def lets_through(wanted: JobFilter, job: Job) -> bool:
    """The model of a filter: any of the values, each of the conditions."""
    return (
        (not wanted.statuses or job.status in wanted.statuses)
        and (not wanted.queues or job.queue in wanted.queues)
        and (not wanted.names or job.name in wanted.names)
        and (not wanted.tags or bool(set(wanted.tags) & set(json.loads(job.tags))))
        and (not wanted.workers or job.locked_by in wanted.workers)
        and (wanted.created_after is None or job.created_at > wanted.created_after)
        and (wanted.created_before is None or job.created_at < wanted.created_before)
    )


async def walk(
    session: ReadSession, wanted: JobFilter, limit: int, window: int, largest: int
) -> list[JobId]:
    """The ids on all pages, one after the other."""
    ids: list[JobId] = []
    after: int | None = None
    for _ in range(100):
        page = await page_of_jobs(
            session, wanted, after, limit=limit, window=window, largest=largest
        )
        assert len(page.jobs) <= limit
        assert sum(len(job.payload or "") for job in page.jobs[:-1]) < largest
        ids += [job.id for job in page.jobs]
        after = page.next_after
        if after is None:
            return ids
    raise AssertionError("the pages never end")


@settings(one_store, max_examples=60)
@given(
    wishes=st.lists(new_jobs, min_size=1, max_size=14),
    wanted=filters,
    limit=st.integers(1, 6),
    window=st.integers(1, 8),
    largest=st.integers(1, 30),
)
async def test_all_pages_together_show_what_the_filter_lets_through_once_and_in_order(
    store: Store, wishes: list[NewJob], wanted: JobFilter, limit: int, window: int, largest: int
) -> None:
    async with undone(store) as session:
        ids: list[JobId] = []
        for number, wish in enumerate(wishes):
            session.now = Micros(START + number // 3)
            ids += [job.id for job in await create_jobs(session, [wish])]
        await claim_jobs(session, [claim_request(name) for name in WORKERS], QUEUES, 60)
        await cancel_queued(session, list((await find_jobs(session, ids[-2:])).values()))
        jobs = (await find_jobs(session, ids)).values()
        shown = await walk(session, wanted, limit, window, largest)
    expected = sorted(job.id for job in jobs if lets_through(wanted, job))
    assert shown == (expected[::-1] if wanted.newest_first else expected)


async def test_a_page_looks_at_no_more_rows_than_its_window(store: Store) -> None:
    wanted, bounds = JobFilter(queues=("rare",)), {"limit": 5, "window": 4, "largest": 1}
    async with undone(store) as session:
        jobs = await create_jobs(
            session, [new_job(queue="rare" if n == 0 else "q") for n in range(9)]
        )
        page = await page_of_jobs(session, wanted, None, **bounds)
        assert ([*page.jobs], page.next_after) == ([], jobs[5].id)
        page = await page_of_jobs(session, wanted, page.next_after, **bounds)
        assert ([*page.jobs], page.next_after) == ([], jobs[1].id)
        page = await page_of_jobs(session, wanted, page.next_after, **bounds)
        assert ([job.id for job in page.jobs], page.next_after) == ([jobs[0].id], None)


@pytest.mark.parametrize("field", ["payload", "result", "checkpoint"])
async def test_heavy_fields_are_shown_only_when_they_are_asked_for(
    house: House, field: str
) -> None:
    job = await house.running(payload="1")
    await house.heartbeats.beat(heartbeat(job, checkpoint="1"))
    await house.reports.report(report(job, Succeeded(JsonText("1"))))
    heavy = ("payload", "result", "checkpoint")
    (job,) = (await house.jobs.page(JobFilter(include=frozenset({field})), 10, None)).jobs
    shown = {name for name in heavy if getattr(job, name) is not None}
    assert shown == {field}
    (job,) = (await house.jobs.page(JobFilter(), 10, None)).jobs
    assert [getattr(job, name) for name in heavy] == [None] * 3


async def test_a_page_ends_with_the_job_that_brings_it_to_its_largest_size(store: Store) -> None:
    wanted = JobFilter(include=frozenset({"payload"}), newest_first=False)
    async with undone(store) as session:
        texts = ["é" * 4, "", "x" * 90, "xx", "xx"]  # 10, 2, 92, 4 and 4 bytes as JSON
        wishes = [new_job(payload=to_json(text)) for text in texts]
        ids = [job.id for job in await create_jobs(session, wishes)]
        pages: list[list[JobId]] = []
        for after in (0, ids[0], ids[1], ids[2]):
            page = await page_of_jobs(session, wanted, after, limit=5, window=9, largest=10)
            pages.append([job.id for job in page.jobs])
            assert page.next_after == (None if page.jobs[-1].id == ids[-1] else page.jobs[-1].id)
        assert pages == [ids[:1], ids[1:3], ids[2:3], ids[3:]]
        lean = replace(wanted, include=frozenset())
        page = await page_of_jobs(session, lean, None, limit=5, window=9, largest=10)
        assert len(page.jobs) == 5


@pytest.mark.parametrize("newest_first", [True, False])
async def test_a_page_of_heavy_jobs_is_short_and_the_next_one_goes_on(
    house: House, newest_first: bool
) -> None:
    heavy = to_json("x" * (LARGEST_PAGE_BYTES // 2))
    ids = [(await house.create(payload=heavy)).id for _ in range(3)]
    wanted = JobFilter(include=frozenset({"payload"}), newest_first=newest_first)
    first = await house.jobs.page(wanted, 500, None)
    second = await house.jobs.page(wanted, 500, first.next_cursor)
    shown = [[job.id for job in page.jobs] for page in (first, second)]
    ordered = ids[::-1] if newest_first else ids
    assert shown == [ordered[:2], ordered[2:]]
    assert second.next_cursor is None


async def test_the_service_walks_by_cursors_in_both_orders(house: House) -> None:
    ids = [(await house.create()).id for _ in range(5)]
    for newest_first in (True, False):
        shown: list[JobId] = []
        cursor: str | None = None
        while True:
            page = await house.jobs.page(JobFilter(newest_first=newest_first), 2, cursor)
            shown += [job.id for job in page.jobs]
            if (cursor := page.next_cursor) is None:
                break
        assert shown == (ids[::-1] if newest_first else ids)


async def test_a_cursor_of_the_other_order_is_refused(house: House) -> None:
    await house.create()
    cursor = (await house.jobs.page(JobFilter(newest_first=True), 1, None)).next_cursor
    with pytest.raises(ValidationFailed):
        await house.jobs.page(JobFilter(newest_first=False), 1, cursor)


async def test_a_trail_is_told_oldest_first_and_in_pages(house: House) -> None:
    job = await house.running()
    await house.reports.report(report(job, Released(0)))
    await house.reports.report(report(await house.claim()))
    told: list[str] = []
    cursor: str | None = None
    while True:
        page = await house.jobs.events(job.id, 2, cursor)
        told += [event.action for event in page.events]
        if (cursor := page.next_cursor) is None:
            break
    assert told == ["create", "claim", "release", "claim", "succeed"]


async def test_a_trail_is_of_one_job_alone(house: House) -> None:
    job, other = await house.create(), await house.create()
    async with house.transactions.read() as session:
        events = await page_of_events(session, job.id, 0, 10)
        others = await page_of_events(session, other.id, events[0].id, 10)
    assert [event.action for event in (*events, *others)] == ["create", "create"]
    assert events[0].id != others[0].id


async def test_a_job_that_is_not_there_is_not_found(house: House) -> None:
    await house.create()
    with pytest.raises(JobNotFound):
        await house.jobs.get(JobId(2**63 - 1))
    with pytest.raises(JobNotFound):
        await house.jobs.events(JobId(2), 10, None)


async def test_found_jobs_are_those_that_exist(store: Store) -> None:
    async with undone(store) as session:
        jobs = await create_jobs(session, [new_job(payload=JsonText("1")), new_job()])
        found = await find_jobs(session, [jobs[1].id, JobId(10**15), jobs[0].id, jobs[1].id])
        assert found == {job.id: job for job in jobs}
        assert await find_jobs(session, []) == {}
