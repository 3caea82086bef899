"""GET /jobs: filters, order, pages, and how far one page looks (section 1)."""

import itertools
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest

from tests.api.calls import Api, Json, ok, places, refused
from tests.conftest import URL, World

WINDOW = 10_000

Test = Callable[[Json], bool]


async def walk(api: Api, **query: Any) -> list[int]:
    """The ids of all pages, by next_cursor."""
    ids: list[int] = []
    cursor: str | None = None
    while True:
        page = ok(
            await api.http.get("/jobs", params={**query, **({"cursor": cursor} if cursor else {})})
        )
        ids += [job["id"] for job in page["jobs"]]
        cursor = page["next_cursor"]
        if cursor is None:
            return ids


async def test_an_empty_list(world: World) -> None:
    answer = await world.http.get("/jobs")
    assert ok(answer) == {"jobs": [], "next_cursor": None}
    assert "link" not in answer.headers


async def test_items_are_jobs_without_their_heavy_fields(api: Api) -> None:
    lease = await api.started(payload={"a": 1})
    await api.beat(lease, checkpoint={"c": 3}, progress={"p": 4})
    job = await api.report(lease, "succeeded", result={"r": 2})
    heavy = {"payload", "result", "checkpoint"}
    for n in range(4):
        for include in map(list, itertools.combinations(sorted(heavy), n)):
            (item,) = await api.jobs(include=include)
            shown = {name: job[name] for name in job if name not in heavy - set(include)}
            assert item == shown


async def test_include_takes_nothing_else(world: World) -> None:
    for name in ("progress", "error", "lease_token", "", "payload,result", "PAYLOAD"):
        refused(await world.http.get("/jobs", params={"include": name}))


@pytest.fixture
async def eight(api: Api, world: World) -> list[Json]:
    """Jobs that differ in all that can be asked for; one second between two of them."""
    made: list[Json] = []
    for n in range(8):
        made.append(
            await api.create(
                f"n{n % 2}", queue=f"q{n // 4}", tags=[f"t{n % 3}", "all"], max_retries=0
            )
        )
        world.clock.move(1)
    running = await api.claim("w1", queues=["q0"])
    done = await api.claim("w2", queues=["q0"])
    failed = await api.claim("w2", queues=["q1"])
    await api.report(done, "succeeded")
    await api.report(failed, "failed")
    await api.cancel(made[6])
    assert [running["id"], done["id"], failed["id"]] == [made[n]["id"] for n in (0, 1, 4)]
    return [await api.get(job) for job in made]


async def test_each_filter_and_all_pairs_of_them(api: Api, eight: list[Json]) -> None:
    filters: dict[str, tuple[list[str], Test]] = {
        "status": (["queued", "failed"], lambda job: job["status"] in ("queued", "failed")),
        "queue": (["q1", "nowhere"], lambda job: job["queue"] == "q1"),
        "name": (["n0"], lambda job: job["name"] == "n0"),
        "tag": (["t0", "t1"], lambda job: bool({"t0", "t1"} & set(job["tags"]))),
        "worker_id": (["w2"], lambda job: job["locked_by"] == "w2"),
        "created_after": (
            [eight[1]["created_at"]],
            lambda job: job["created_at"] > eight[1]["created_at"],
        ),
        "created_before": (
            [eight[5]["created_at"]],
            lambda job: job["created_at"] < eight[5]["created_at"],
        ),
    }
    for n in (1, 2):
        for names in itertools.combinations(filters, n):
            query = {name: filters[name][0] for name in names}
            wanted = [job["id"] for job in eight if all(filters[name][1](job) for name in names)]
            assert await walk(api, order="oldest", **query) == wanted, names
            assert await walk(api, order="newest", limit=2, **query) == wanted[::-1], names
    everything = {name: values for name, (values, _) in filters.items()}
    wanted = [job["id"] for job in eight if all(test(job) for _, test in filters.values())]
    assert await walk(api, order="oldest", **everything) == wanted


async def test_every_status_can_be_asked_for(world: World) -> None:
    for status in ("queued", "running", "succeeded", "failed", "exhausted", "cancelled"):
        ok(await world.http.get("/jobs", params={"status": status}))
    for status in ("blocked", "delayed", "Queued", "", "queued,running"):
        body = refused(await world.http.get("/jobs", params={"status": status}))
        assert places(body) == {"query.status.0"}


async def test_a_repeated_parameter_means_any_of_them(api: Api, eight: list[Json]) -> None:
    found = ok(await api.http.get("/jobs?queue=q0&queue=q1&queue=q0&name=n0&name=n1"))["jobs"]
    assert len(found) == len(eight)


async def test_a_job_is_listed_once_whatever_its_tags(api: Api) -> None:
    job = await api.create(tags=["a", "b", "a"])
    assert await walk(api, tag=["a", "b"]) == [job["id"]]
    assert await walk(api, tag=["A"]) == []


async def test_times_of_a_filter_may_have_an_offset(api: Api, eight: list[Json]) -> None:
    # 11:06:41 in UTC, one second after the first
    found = await api.jobs(created_before="2026-11-18T13:06:41+02:00", order="oldest")
    assert [job["id"] for job in found] == [eight[0]["id"]]


async def test_a_worker_is_whoever_holds_or_last_held_the_job(api: Api, eight: list[Json]) -> None:
    assert [job["id"] for job in await api.jobs(worker_id="w1")] == [eight[0]["id"]]
    assert len(await api.jobs(worker_id="w2")) == 2


async def test_newest_first_unless_told_otherwise(api: Api) -> None:
    ids = [(await api.create())["id"] for _ in range(3)]
    assert await walk(api) == await walk(api, order="newest") == ids[::-1]
    assert await walk(api, order="oldest") == ids
    refused(await api.http.get("/jobs", params={"order": "random"}))


async def test_a_page_has_50_jobs_or_as_many_as_it_is_asked_for(api: Api, world: World) -> None:
    fill(world, 500, await api.create())
    assert len(await api.jobs()) == 50
    assert len(await api.jobs(limit=1)) == 1
    assert len(await api.jobs(limit=500)) == 500
    for limit in ("0", "501", "-1", "5.0", "1e1", "x", "", "+5", " 5", "\u0665", "9" * 30):
        body = refused(await api.http.get("/jobs", params={"limit": limit}))
        assert places(body) == {"query.limit"}


@pytest.mark.parametrize("order", ["newest", "oldest"])
async def test_a_walk_has_no_gap_and_no_duplicate_while_jobs_come(api: Api, order: str) -> None:
    known = [(await api.create())["id"] for _ in range(7)]
    seen: list[int] = []
    cursor: str | None = None
    for _ in range(20):
        page = ok(
            await api.http.get(
                "/jobs",
                params={"limit": 2, "order": order, **({"cursor": cursor} if cursor else {})},
            )
        )
        seen += [job["id"] for job in page["jobs"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
        if len(seen) < 7:
            known.append((await api.create())["id"])
    assert cursor is None
    assert len(seen) == len(set(seen))
    assert seen == sorted(seen, reverse=order == "newest")
    assert set(known[:7]) <= set(seen)
    if order == "oldest":
        assert seen == known


async def test_the_link_leads_on_with_the_same_question(api: Api, world: World) -> None:
    awkward = 'a&b=c #é%+;"<>'
    fill(world, 11, await api.create())
    wanted = [(await api.create(awkward, queue=awkward, tags=[awkward]))["id"] for _ in range(5)]
    query = f"name={quote(awkward)}&queue={quote(awkward)}&tag={quote(awkward)}"
    url = (
        f"{URL}/jobs?{query}&status=queued&status=running&order=oldest&include=payload"
        "&include=result&limit=2&created_after=2020-01-01T00:00:00%2B02:00"
    )
    seen: list[int] = []
    links = 0
    while True:
        answer = await api.http.get(url)
        page = ok(answer)
        seen += [job["id"] for job in page["jobs"]]
        assert all("payload" in job and "checkpoint" not in job for job in page["jobs"])
        assert len(page["jobs"]) <= 2
        link = answer.headers.get("link")
        assert (link is None) == (page["next_cursor"] is None)
        if link is None:
            break
        links += 1
        target, _, relation = link.partition(">")
        assert relation == '; rel="next"'
        url = URL + target.removeprefix("<")
    assert seen == wanted
    assert links >= 2


async def test_a_cursor_belongs_to_its_listing_and_order(api: Api, world: World) -> None:
    fill(world, 2, await api.create())
    page = ok(await api.http.get("/jobs", params={"limit": 1, "order": "newest"}))
    cursor = page["next_cursor"]
    assert isinstance(cursor, str)
    for path, query in (
        ("/jobs", {"order": "oldest", "cursor": cursor}),
        ("/jobs/1/events", {"cursor": cursor}),
        ("/jobs", {"cursor": ""}),
        ("/jobs", {"cursor": "x"}),
        ("/jobs", {"cursor": cursor[:-2]}),
        ("/jobs", {"cursor": "é"}),
        ("/jobs", {"cursor": "A" * 5_000}),
        ("/jobs", {"cursor": "bmV3ZXN0Oi0x"}),  # newest:-1
        ("/jobs", {"cursor": "bmV3ZXN0Ojk5OTk5OTk5OTk5OTk5OTk5OTk"}),  # newest:9999999999999999999
    ):
        assert places(refused(await api.http.get(path, params=query))) == {"query.cursor"}


# How far one page looks


def fill(world: World, count: int, like: Json) -> None:
    """Finished jobs, for the rest like this one, written past the server."""
    world.database.rows(
        """
        WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < ?)
        INSERT INTO jobs (
            queue, name, payload, priority, status, delayed, attempt, retry_count, max_retries,
            release_count, run_at, retry_base_seconds, retry_factor, retry_max_seconds,
            retry_jitter, cancel_requested, tags, created_at, updated_at, finished_at)
        SELECT 'filling', 'filling', payload, priority, 'succeeded', delayed, attempt, retry_count,
               max_retries, release_count, run_at, retry_base_seconds, retry_factor,
               retry_max_seconds, retry_jitter, cancel_requested, tags, created_at, updated_at,
               updated_at
          FROM n CROSS JOIN jobs WHERE id = ?
        """,
        count,
        like["id"],
    )


@pytest.mark.parametrize("order", ["newest", "oldest"])
async def test_a_page_looks_at_10_000_rows_and_may_be_short(
    api: Api, world: World, order: str
) -> None:
    first = await api.create("rare", tags=["rare"])
    fill(world, WINDOW - 1, first)
    middle = await api.create("rare", tags=["rare"])
    fill(world, WINDOW + 5, first)
    last = await api.create("rare", tags=["rare"])
    wanted = [job["id"] for job in (first, middle, last)]
    if order == "newest":
        wanted.reverse()

    pages: list[list[int]] = []
    query: Json = {"name": "rare", "order": order}
    while True:
        page = ok(await api.http.get("/jobs", params=query))
        pages.append([job["id"] for job in page["jobs"]])
        if page["next_cursor"] is None:
            break
        query["cursor"] = page["next_cursor"]
    assert list(itertools.chain(*pages)) == wanted
    # 20,007 rows: two pages that looked at their fill, and what is left.
    assert len(pages) == 3
    assert all(len(found) < 50 for found in pages)
    assert await walk(api, tag="rare", order=order) == wanted


async def test_what_lies_10_000_rows_away_is_still_seen(api: Api, world: World) -> None:
    job = await api.create("rare")
    fill(world, WINDOW - 1, job)
    page = ok(await api.http.get("/jobs", params={"name": "rare"}))
    assert [found["id"] for found in page["jobs"]] == [job["id"]]
    fill(world, 1, job)
    page = ok(await api.http.get("/jobs", params={"name": "rare"}))
    assert page["jobs"] == []
    assert page["next_cursor"] is not None
