"""No statement of the hot path pays for what waits, is delayed or is finished, whatever the planner
knows of the tables.

Each statement is prepared and executed until the server keeps a plan for it, and undone. The pages
that it touches are counted in a long store and in an almost empty one: no wall clock.
"""

import asyncio
import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import asyncpg
import pytest
from sqlalchemy.dialects.postgresql.asyncpg import PGDialect_asyncpg

from compute_orchestrator.db.sessions import Statement
from compute_orchestrator.db.statements.cancel import CANCEL_QUEUED, MARK_RUNNING
from compute_orchestrator.db.statements.claim import CLAIM, CLAIMED_BEFORE
from compute_orchestrator.db.statements.create import CREATE, FIND_KEYS, INDEX_TAGS, REMEMBER_KEYS
from compute_orchestrator.db.statements.heartbeat import HEARTBEAT
from compute_orchestrator.db.statements.leave import LEAVE
from compute_orchestrator.db.statements.promote import NEXT_DUE, PROMOTE
from compute_orchestrator.db.statements.prune import (
    DELETE_EVENTS,
    DELETE_JOBS,
    DELETE_KEYS,
    DELETE_TAGS,
    FINISHED_BEFORE,
)
from compute_orchestrator.db.statements.read import (
    EDGES,
    EVENTS,
    FIND,
    FIND_TO_CHANGE,
    PAGES,
)
from compute_orchestrator.db.statements.reap import ANY_RUNNING, EXPIRED, PULL_IN
from compute_orchestrator.db.statements.report import HELD, LEFT_BEFORE, SUCCEED
from compute_orchestrator.db.statements.retry import RETRY
from compute_orchestrator.db.statements.rows import batch
from compute_orchestrator.db.statements.stats import OLDEST_CLAIMABLE
from compute_orchestrator.db.statements.trail import WRITE_EVENTS
from compute_orchestrator.db.statements.workers import RUNNING_BY_WORKER
from tests.clocks import START
from tests.postgres import Postgres

ALL_EXPIRED = {"since": "2000-01-01T00:00:00Z", "passed_at": "2100-01-01T00:00:00Z"}
EXECUTIONS = 7
"""From the sixth on the server may keep a plan that holds for any parameters."""
FACTOR, MARGIN = 3, 60
"""How many times as many pages a long store may cost, and how many more."""
LARGE_TABLES = {"jobs", "job_events", "job_tags", "idempotency_keys"}


class Numbers(NamedTuple):
    """How many jobs of each kind there are. Ids go up in this order, from `first`."""

    finished: int
    queued: int
    delayed: int
    running: int
    first: int = 1

    @property
    def first_queued(self) -> int:
        return self.first + self.finished

    @property
    def first_running(self) -> int:
        return self.first_queued + self.queued + self.delayed

    @property
    def last(self) -> int:
        return self.first_running + self.running - 1


SMALL = Numbers(300, 300, 300, 50)
BUSY = Numbers(60_000, 20_000, 40_000, 50, first=SMALL.last + 1)
VAST = Numbers(1_000_000, 100_000, 200_000, 50, first=SMALL.last + 1)

# The delayed ones have the higher priority: they stand in front of all that may be claimed.
FILL = """
    INSERT INTO jobs (
        id, queue, name, payload, priority, status, delayed,
        attempt, retry_count, max_retries, release_count, run_at,
        retry_base_seconds, retry_factor, retry_max_seconds, retry_jitter, cancel_requested, tags,
        created_at, updated_at, finished_at,
        locked_by, locked_at, last_heartbeat_at, lease_expires_at, held_seconds, lease_token,
        request_id, request_slot)
    SELECT n, 'q' || n % 4, 'resize', '{"n":1}', CASE WHEN later THEN 10 ELSE n % 3 END,
           status, CAST(later AS integer), 1, 0, 3, 0,
           now() + CASE WHEN later THEN n + 3600 ELSE n % 1000 - 2000 END * interval '1 second',
           1, 2, 3600, 0.2, 0, '["t"]', now(), now(),
           CASE WHEN status = 'succeeded' THEN now() - interval '1 hour' + n * interval '1 ms' END,
           CASE WHEN runs THEN 'w' END, CASE WHEN runs THEN now() END,
           CASE WHEN runs THEN now() END,
           CASE WHEN runs THEN now() + CASE WHEN n % 10 = 0 THEN -1 ELSE 1 END * interval '1 hour'
           END,
           CASE WHEN runs THEN 3600 END, CASE WHEN runs THEN 'token of ' || n END,
           CASE WHEN runs THEN 'request ' || n END, CASE WHEN runs THEN 0 END
      FROM (SELECT n, n >= $4 AS runs, n >= $3 AND n < $4 AS later,
                   CASE WHEN n < $2 THEN 'succeeded' WHEN n < $4 THEN 'queued' ELSE 'running'
                   END AS status
              FROM generate_series(CAST($1 AS bigint), $5) AS its(n)) AS placed
"""
FILL_REST = (
    """
    INSERT INTO job_events (
        job_id, action, from_status, to_status, actor, attempt, at, lease_token)
    SELECT id, 'succeed', 'running', 'succeeded', 'w', 1, created_at, 'token of ' || id
      FROM jobs WHERE finished_at IS NOT NULL AND id >= $1
    """,
    "INSERT INTO job_tags (tag, job_id) SELECT 't', id FROM jobs WHERE id >= $1",
    """
    INSERT INTO idempotency_keys (key, part, body_hash, first_job_id, job_count)
    SELECT 'key ' || id, 0, 'hash', id, 1 FROM jobs WHERE id >= $1
    """,
)
BY_HAND = "; ".join(
    f"ALTER TABLE {table} SET (autovacuum_enabled = false)" for table in LARGE_TABLES
)
NUMBERED = "SELECT setval(pg_get_serial_sequence('jobs', 'id'), max(id)) FROM jobs"
FORGET = """
    DELETE FROM pg_statistic WHERE starelid IN (
        SELECT oid FROM pg_class WHERE relnamespace = 'public'::regnamespace);
    UPDATE pg_class SET reltuples = -1, relpages = 0
     WHERE relnamespace = 'public'::regnamespace
"""


async def fill(connection: asyncpg.Connection, numbers: Numbers) -> None:
    """What was there before is deleted, and known to the planner still."""
    for table in LARGE_TABLES:
        await connection.execute(f"DELETE FROM {table}")  # noqa: S608 - our own tables
    first_delayed = numbers.first_queued + numbers.queued
    await connection.execute(
        FILL,
        numbers.first,
        numbers.first_queued,
        first_delayed,
        numbers.first_running,
        numbers.last,
    )
    for sql in FILL_REST:
        await connection.execute(sql, numbers.first)
    await connection.execute(NUMBERED)


# --- the statements

PAGE: Mapping[str, Any] = {
    **dict.fromkeys(("statuses", "queues", "names", "workers", "created_after", "created_before")),
    **dict.fromkeys(("with_payload", "with_result", "with_checkpoint"), False),
    "tags": batch(["t"]),
    "n": 10,
    "window": 20,
    "largest": 1_000_000,
}

Hot = tuple[Statement, Mapping[str, Any]]


def hot(numbers: Numbers) -> dict[str, Hot]:
    """The statements of the hot path, each for a few jobs of a store."""
    running = [numbers.first_running + number for number in range(5)]
    waiting = [numbers.first_queued + number for number in range(5)]
    finished = [numbers.first + number for number in range(5)]
    keys = batch({"job_id": n, "lease_token": f"token of {n}"} for n in running)
    old_keys = batch({"job_id": n, "lease_token": f"token of {n}"} for n in finished)
    left = batch(
        {
            "job_id": n,
            "lease_token": f"token of {n}",
            "status": "queued",
            "action": "fail",
            "retry_count": 1,
            "release_count": 0,
            "run_at": START,
        }
        for n in running
    )
    slots = batch({"lease_token": f"{n:032x}", "worker_id": "w"} for n in range(5))
    new = {
        "queue": "q0",
        "name": "resize",
        "priority": 0,
        "max_retries": 3,
        "tags": "[]",
        "retry_base_seconds": 1,
        "retry_factor": 2,
        "retry_max_seconds": 9,
        "retry_jitter": 0,
    }
    events = [[n, "claim", "queued", "running", "w", None, 1, 0, "t"] for n in waiting]
    claim = {
        "slots": slots,
        "n": 5,
        "window": 69,
        "largest": 8_000_000,
        "default_lease_seconds": 60,
    }
    middle = numbers.first_queued
    return {
        "claim": (CLAIM, {**claim, "queues": batch(["q0"])}),
        "claim from many queues": (
            CLAIM,
            {**claim, "queues": batch(["q0", "q1", "q2", "q3", "none"])},
        ),
        "claim from an empty queue": (CLAIM, {**claim, "queues": batch(["none"])}),
        "claimed before": (
            CLAIMED_BEFORE,
            {"requests": batch({"worker_id": "w", "request_id": f"request {n}"} for n in running)},
        ),
        "create": (CREATE, {"jobs": batch([new] * 5)}),
        "index tags": (INDEX_TAGS, {"tags": batch({"tag": "u", "job_id": n} for n in waiting)}),
        "find keys": (FIND_KEYS, {"keys": batch(f"key {n}" for n in finished)}),
        "remember keys": (
            REMEMBER_KEYS,
            {
                "keys": batch(
                    [{"key": "k", "part": 0, "body_hash": "h", "first_job_id": 1, "job_count": 1}]
                )
            },
        ),
        "heartbeat": (HEARTBEAT, {"beats": keys}),
        "succeed": (SUCCEED, {"successes": keys, "beside": "[]"}),
        "succeed beside others": (SUCCEED, {"successes": "[]", "beside": keys}),
        "held": (HELD, {"keys": keys}),
        "leave": (LEAVE, {"leaving": left}),
        "left before": (LEFT_BEFORE, {"keys": old_keys}),
        "write events": (WRITE_EVENTS, {"events": batch(events)}),
        "cancel": (CANCEL_QUEUED, {"ids": batch(waiting)}),
        "mark": (MARK_RUNNING, {"ids": batch(running)}),
        "retry": (RETRY, {"ids": batch(finished)}),
        "promote": (PROMOTE, {"n": 1_000}),
        "next due": (NEXT_DUE, {}),
        "any running": (ANY_RUNNING, {}),
        "running by worker": (RUNNING_BY_WORKER, {}),
        "expired": (EXPIRED, {**ALL_EXPIRED, "n": 200}),
        "pull in": (PULL_IN, {}),
        "find": (FIND, {"ids": batch(finished)}),
        "find to change": (FIND_TO_CHANGE, {"ids": batch(finished)}),
        "events": (EVENTS, {"job_id": finished[2], "after": 0, "n": 10}),
        "oldest claimable": (OLDEST_CLAIMABLE, {"queues": batch(["q0", "q1"])}),
        "finished before": (FINISHED_BEFORE, {"retention": 0, "n": 20}),
        "prune tags": (DELETE_TAGS, {"ids": batch(finished)}),
        "prune events": (DELETE_EVENTS, {"ids": batch(finished)}),
        "prune jobs": (DELETE_JOBS, {"ids": batch(finished)}),
        "prune keys": (DELETE_KEYS, {"ids": batch(finished)}),
        **{
            f"{'newest' if newest else 'oldest'} {what}{' of a tag' if tagged else ''}": (
                statements[newest, tagged],
                {**PAGE, "after": middle},
            )
            for what, statements in (("page", PAGES), ("edge", EDGES))
            for newest, tagged in statements
        },
        "newest page that is filtered": (
            PAGES[True, False],
            {**PAGE, "after": middle, "statuses": batch(["succeeded"]), "queues": batch(["q1"])},
        ),
    }


# --- what the server does with them


class Ran(NamedTuple):
    """The pages that a statement touched, the rows that it brought, the tables that it scanned."""

    pages: int
    rows: int
    scans: frozenset[str]


def literal(value: Any) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    return str(value)


def nodes(plan: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield plan
    for part in plan.get("Plans", ()):
        yield from nodes(part)


async def run(connection: asyncpg.Connection, one: Hot) -> Ran:
    """Execute a statement until its plan is kept, and undo it each time."""
    statement, parameters = one
    (clause,) = statement.on("postgresql")
    compiled = clause.compile(dialect=PGDialect_asyncpg())
    given = {"now": None, **parameters}
    values = ", ".join(literal(given[name]) for name in compiled.positiontup or ())
    await connection.execute(f"PREPARE hot AS {compiled}")
    execute = f"EXECUTE hot({values})" if values else "EXECUTE hot"
    shown = ""
    for _ in range(EXECUTIONS):
        undone = connection.transaction()
        await undone.start()
        shown = await connection.fetchval(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {execute}")
        await undone.rollback()
    await connection.execute("DEALLOCATE hot")
    plan = json.loads(shown)[0]["Plan"]
    scans = [node["Relation Name"] for node in nodes(plan) if node["Node Type"] == "Seq Scan"]
    return Ran(
        plan["Shared Hit Blocks"] + plan["Shared Read Blocks"],
        plan["Actual Rows"],
        frozenset(scans) & LARGE_TABLES,
    )


async def run_all(connection: asyncpg.Connection, numbers: Numbers) -> dict[str, Ran]:
    return {name: await run(connection, one) for name, one in hot(numbers).items()}


class Measured(NamedTuple):
    """What the statements cost, in a small store and in a long one by what the planner knows."""

    small: dict[str, Ran]
    long: dict[str, dict[str, Ran]]


async def measure(url: str, numbers: Numbers) -> Measured:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(BY_HAND)
        await fill(connection, SMALL)
        await connection.execute("ANALYZE")
        small = await run_all(connection, SMALL)
        await fill(connection, numbers)
        long = {"of a small past": await run_all(connection, numbers)}
        await connection.execute("ANALYZE")
        long["of this"] = await run_all(connection, numbers)
        await connection.execute("SET plan_cache_mode = force_generic_plan")
        long["of this, and keeps its plan"] = await run_all(connection, numbers)
        await connection.execute(FORGET)
        long["nothing, and keeps its plan"] = await run_all(connection, numbers)
        await connection.execute("RESET plan_cache_mode")
        long["nothing"] = await run_all(connection, numbers)
        return Measured(small, long)
    finally:
        await connection.close()


def measured_on(postgres: Postgres, numbers: Numbers) -> Measured:
    url = postgres.empty()
    try:
        return asyncio.run(measure(url, numbers))
    finally:
        postgres.drop(url)


# A worker of xdist that runs none of these need not fill the store.


@pytest.fixture(scope="module")
def busy(postgres: Postgres) -> Measured:
    return measured_on(postgres, BUSY)


def scans(measured: Measured) -> dict[tuple[str, str], frozenset[str]]:
    """The statements that went through a whole table, by what the planner knew."""
    return {
        (name, known): ran.scans
        for known, its in measured.long.items()
        for name, ran in its.items()
        if ran.scans
    }


def dear(measured: Measured) -> dict[tuple[str, str], tuple[int, int]]:
    """The statements that cost more than they may, by what the planner knew."""
    return {
        (name, known): (ran.pages, measured.small[name].pages)
        for known, its in measured.long.items()
        for name, ran in its.items()
        if ran.pages > FACTOR * measured.small[name].pages + MARGIN
    }


def test_no_statement_goes_through_a_whole_table(busy: Measured) -> None:
    assert scans(busy) == {}


def test_statements_touch_as_few_pages_as_in_an_almost_empty_store(busy: Measured) -> None:
    assert dear(busy) == {}
    for its in busy.long.values():
        brought = {name: ran.rows for name, ran in its.items()}
        assert brought == {name: ran.rows for name, ran in busy.small.items()}
    assert busy.small["claim"].rows == busy.small["heartbeat"].rows == 5


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_nor_do_they_with_a_million_jobs_behind_them(postgres: Postgres) -> None:
    vast = measured_on(postgres, VAST)
    assert scans(vast) == {}
    assert dear(vast) == {}
