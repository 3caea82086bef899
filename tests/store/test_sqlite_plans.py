"""No statement of the hot path pays for what waits, is delayed or is finished.

The plans are asked of SQLite for a store with a long past, and the steps of its virtual machine are
counted there and in an almost empty store: no wall clock.
"""

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from compute_orchestrator.db.sessions import Statement
from compute_orchestrator.db.statements.cancel import CANCEL_QUEUED, MARK_RUNNING
from compute_orchestrator.db.statements.claim import CLAIM, CLAIMED_BEFORE
from compute_orchestrator.db.statements.create import CREATE, FIND_KEYS, REMEMBER_KEYS
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
from compute_orchestrator.db.statements.read import EVENTS, FIND, PAGES
from compute_orchestrator.db.statements.reap import ANY_RUNNING, EXPIRED, PULL_IN
from compute_orchestrator.db.statements.report import HELD, LEFT_BEFORE, SUCCEED
from compute_orchestrator.db.statements.retry import RETRY
from compute_orchestrator.db.statements.rows import batch
from compute_orchestrator.db.statements.stats import OLDEST_CLAIMABLE
from compute_orchestrator.domain.values import micros
from tests.clocks import START

FINISHED, QUEUED, DELAYED, RUNNING = 200_000, 20_000, 40_000, 50
TOLERANCE = 1.3
NOW = START


class Numbers(NamedTuple):
    """How many jobs of each kind a file holds; ids go up in this order."""

    finished: int
    queued: int
    delayed: int
    running: int

    @property
    def first_running(self) -> int:
        return self.finished + self.queued + self.delayed + 1


BUSY = Numbers(FINISHED, QUEUED, DELAYED, RUNNING)
SMALL = Numbers(40, 40, 40, RUNNING)

# The delayed ones have the higher priority: they stand in front of all that may be claimed.
FILL = """
    WITH RECURSIVE numbered(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbered WHERE n < :total),
    placed AS (SELECT n, CASE WHEN n <= :finished THEN 'succeeded'
                              WHEN n < :first_running THEN 'queued' ELSE 'running' END AS status,
                      n > :finished + :queued AND n < :first_running AS delayed
                 FROM numbered)
    INSERT INTO jobs (
        id, queue, name, payload, priority, status, delayed,
        attempt, retry_count, max_retries, release_count, run_at,
        retry_base_seconds, retry_factor, retry_max_seconds, retry_jitter, cancel_requested, tags,
        created_at, updated_at, finished_at,
        locked_by, locked_at, last_heartbeat_at, lease_expires_at, held_seconds, lease_token,
        request_id, request_slot)
    SELECT n, 'q' || (n % 4), 'resize', '{"n":1}', iif(delayed, 10, n % 3), status, delayed,
           1, 0, 3, 0, iif(delayed, :now + 1000000 + n, :now - 1000 + n % 1000),
           1, 2, 3600, 0.2, 0, '["t"]',
           :now, :now, iif(status = 'succeeded', :now - 1000000 + n, NULL),
           iif(status = 'running', 'w', NULL), iif(status = 'running', :now, NULL),
           iif(status = 'running', :now, NULL),
           iif(status = 'running', :now + iif(n % 10 = 0, -60000000, 60000000), NULL),
           iif(status = 'running', 60, NULL), iif(status = 'running', 'token of ' || n, NULL),
           iif(status = 'running', 'request ' || n, NULL), iif(status = 'running', 0, NULL)
      FROM placed
"""
FILL_EVENTS = """
    INSERT INTO job_events (job_id, action, from_status, to_status, actor, attempt, at, lease_token)
    SELECT id, 'succeed', 'running', 'succeeded', 'w', 1, created_at, 'token of ' || id
      FROM jobs WHERE finished_at IS NOT NULL
"""
FILL_REST = (
    "INSERT INTO job_tags (tag, job_id) SELECT 't', id FROM jobs",
    "INSERT INTO idempotency_keys (key, part, body_hash, first_job_id, job_count)"
    " SELECT 'key ' || id, 0, 'hash', id, 1 FROM jobs WHERE id % 2 = 0",
)


def filled(migrated: Path, path: Path, numbers: Numbers) -> sqlite3.Connection:
    path.write_bytes(migrated.read_bytes())
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA synchronous = OFF")
    connection.execute("PRAGMA temp_store = MEMORY")
    parameters = numbers._asdict() | {
        "total": sum(numbers),
        "first_running": numbers.first_running,
        "now": NOW,
    }
    connection.execute("BEGIN")
    connection.execute(FILL, parameters)
    connection.execute(FILL_EVENTS)
    for sql in FILL_REST:
        connection.execute(sql)
    connection.execute("COMMIT")
    return connection


@pytest.fixture(scope="module")
def busy(
    migrated_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[sqlite3.Connection]:
    """A store with a long past and a long line."""
    path = tmp_path_factory.mktemp("busy") / "orc.db"
    with closing(filled(migrated_file, path, BUSY)) as connection:
        yield connection
    path.unlink()


@pytest.fixture(scope="module")
def small(
    migrated_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[sqlite3.Connection]:
    """A store with a few jobs of each kind."""
    path = tmp_path_factory.mktemp("small") / "orc.db"
    with closing(filled(migrated_file, path, SMALL)) as connection:
        yield connection


def text_of(statement: Statement) -> str:
    (only,) = statement.on("sqlite")
    return only.text


class Hot(NamedTuple):
    """A statement, what it is given in a file, the indexes it walks along, and whether it sorts.

    What may be sorted is what the statement itself brings: the heads of the queues, a batch, a
    page.
    """

    statement: Statement
    parameters: dict[str, Any]
    indexes: set[str]
    sorts: bool = False


PRIMARY = "INTEGER PRIMARY KEY"
SCAN = re.compile(r"SCAN (TABLE )?(jobs|job_events|job_tags|idempotency_keys)\b")
PAGE = {
    **dict.fromkeys(("statuses", "queues", "names", "workers", "created_after", "created_before")),
    **dict.fromkeys(("with_payload", "with_result", "with_checkpoint"), 0),
    "tags": batch(["t"]),
    "n": 10,
    "window": 20,
    "largest": 1_000,
}


def hot(numbers: Numbers) -> dict[str, Hot]:
    """The statements of the hot path, each for a few jobs of a file."""
    running = [numbers.first_running + number for number in range(5)]
    waiting = [numbers.finished + 1 + number for number in range(5)]
    finished = [1 + number for number in range(5)]
    keys = batch({"job_id": n, "lease_token": f"token of {n}"} for n in running)
    old_keys = batch({"job_id": n, "lease_token": f"token of {n}"} for n in finished)
    left = batch(
        {
            "job_id": n,
            "lease_token": f"token of {n}",
            "status": "queued",
            "retry_count": 1,
            "release_count": 0,
            "run_at": NOW + micros(1),
        }
        for n in running
    )
    slots = batch({"lease_token": f"{n:032x}", "worker_id": "w"} for n in range(5))
    new = {
        "queue": "q0",
        "name": "resize",
        "priority": 0,
        "max_retries": 3,
        "retry_base_seconds": 1,
        "retry_factor": 2,
        "retry_max_seconds": 9,
        "retry_jitter": 0,
        "tags": "[]",
    }
    claim = {"slots": slots, "n": 5, "largest": 8_000_000, "default_lease_seconds": 60}
    return {
        "claim": Hot(
            CLAIM, {**claim, "queues": batch(["q0"])}, {"jobs_claimable", PRIMARY}, sorts=True
        ),
        "claim from many queues": Hot(
            CLAIM,
            {**claim, "queues": batch(["q0", "q1", "q2", "q3", "none"])},
            {"jobs_claimable", PRIMARY},
            sorts=True,
        ),
        "claim from an empty queue": Hot(
            CLAIM, {**claim, "queues": batch(["none"])}, {"jobs_claimable", PRIMARY}, sorts=True
        ),
        "claimed before": Hot(
            CLAIMED_BEFORE,
            {"requests": batch({"worker_id": "w", "request_id": f"request {n}"} for n in running)},
            {"jobs_request", PRIMARY},
        ),
        "heartbeat": Hot(HEARTBEAT, {"beats": keys}, {PRIMARY}),
        "succeed": Hot(SUCCEED, {"successes": keys}, {PRIMARY}),
        "leave": Hot(LEAVE, {"leaving": left}, {PRIMARY}),
        "held": Hot(HELD, {"keys": keys}, {PRIMARY}),
        "left before": Hot(LEFT_BEFORE, {"keys": old_keys}, {"job_events_job"}),
        "create": Hot(CREATE, {"jobs": batch([new] * 5)}, set(), sorts=True),
        "find keys": Hot(
            FIND_KEYS,
            {"keys": batch(f"key {n}" for n in finished)},
            {"sqlite_autoindex_idempotency_keys_1"},
        ),
        "remember keys": Hot(
            REMEMBER_KEYS,
            {
                "keys": batch(
                    [{"key": "k", "part": 0, "body_hash": "h", "first_job_id": 1, "job_count": 1}]
                )
            },
            set(),
        ),
        "cancel": Hot(CANCEL_QUEUED, {"ids": batch(waiting)}, {PRIMARY}),
        "mark": Hot(MARK_RUNNING, {"ids": batch(running)}, {PRIMARY}),
        "retry": Hot(RETRY, {"ids": batch(finished)}, {PRIMARY}),
        "promote": Hot(
            PROMOTE,
            {"now": NOW + 1_000_000 + numbers.finished + numbers.queued + 5, "n": 1_000},
            {"jobs_delayed", PRIMARY},
        ),
        "next due": Hot(NEXT_DUE, {}, {"jobs_delayed"}),
        "any running": Hot(ANY_RUNNING, {}, {"jobs_running"}),
        "expired": Hot(EXPIRED, {"since": NOW - micros(100), "n": 200}, {"jobs_running"}),
        "pull in": Hot(PULL_IN, {"now": NOW - micros(3_600)}, {"jobs_running"}),
        "find": Hot(FIND, {"ids": batch(finished)}, {PRIMARY}),
        "events": Hot(EVENTS, {"job_id": 3, "after": 0, "n": 10}, {"job_events_job"}),
        "newest page": Hot(
            PAGES[True, False], {**PAGE, "after": numbers.finished}, {PRIMARY}, sorts=True
        ),
        "oldest page": Hot(PAGES[False, False], {**PAGE, "after": 0}, {PRIMARY}, sorts=True),
        "newest page of a tag": Hot(
            PAGES[True, True],
            {**PAGE, "after": numbers.finished},
            {"PRIMARY KEY", PRIMARY},
            sorts=True,
        ),
        "oldest page of a tag": Hot(
            PAGES[False, True], {**PAGE, "after": 0}, {"PRIMARY KEY", PRIMARY}, sorts=True
        ),
        "oldest claimable": Hot(
            OLDEST_CLAIMABLE, {"queues": batch(["q0", "q1"])}, {"jobs_claimable"}, sorts=True
        ),
        "finished before": Hot(
            FINISHED_BEFORE, {"retention": 1_000_000 - 5, "n": 200}, {"jobs_finished"}
        ),
        "prune tags": Hot(DELETE_TAGS, {"ids": batch(finished)}, {"PRIMARY KEY", PRIMARY}),
        "prune events": Hot(DELETE_EVENTS, {"ids": batch(finished)}, {"job_events_job"}),
        "prune jobs": Hot(DELETE_JOBS, {"ids": batch(finished)}, {PRIMARY}),
        "prune keys": Hot(
            DELETE_KEYS,
            {"ids": batch(finished)},
            {"idempotency_keys_job"},
        ),
    }


def bound(statement: Statement, parameters: dict[str, Any]) -> dict[str, Any]:
    """The parameters that the statement names."""
    named = set(re.findall(r"(?<![:\w]):(\w+)", text_of(statement)))
    given = {"now": NOW, **parameters}
    return {name: given[name] for name in named}


def plan(connection: sqlite3.Connection, one: Hot) -> list[str]:
    sql = f"EXPLAIN QUERY PLAN {text_of(one.statement)}"
    return [row[3] for row in connection.execute(sql, bound(one.statement, one.parameters))]


class Ran(NamedTuple):
    """The steps that a statement took, and the rows that it brought."""

    steps: int
    rows: int


def run(connection: sqlite3.Connection, one: Hot) -> Ran:
    """Run a statement and undo it."""
    steps = 0

    def step() -> int:
        nonlocal steps
        steps += 1
        return 0

    connection.execute("BEGIN")
    connection.set_progress_handler(step, 1)
    try:
        found = connection.execute(
            text_of(one.statement), bound(one.statement, one.parameters)
        ).fetchall()
    finally:
        connection.set_progress_handler(None, 0)
        connection.execute("ROLLBACK")
    return Ran(steps, len(found))


def faults(one: Hot, lines: list[str]) -> list[str]:
    """What is wrong with a plan."""
    # The index of what runs is walked from end to end: it holds nothing else.
    wrong = [line for line in lines if SCAN.match(line) and not line.endswith("INDEX jobs_running")]
    if not one.sorts:
        wrong += [line for line in lines if "TEMP B-TREE" in line]
    walks = " ".join(lines)
    wrong += [
        f"does not walk along {index}"
        for index in one.indexes
        if f"INDEX {index}" not in walks and f"USING {index}" not in walks
    ]
    return wrong


# Each of these is one test and not one a statement: a worker of xdist that runs none of them need
# not fill the store.


def test_no_statement_scans_or_sorts_the_backlog(busy: sqlite3.Connection) -> None:
    wrong = {name: faults(one, plan(busy, one)) for name, one in hot(BUSY).items()}
    assert {name: what for name, what in wrong.items() if what} == {}


def test_statements_take_as_many_steps_as_in_an_almost_empty_store(
    busy: sqlite3.Connection, small: sqlite3.Connection
) -> None:
    many = {name: run(busy, one) for name, one in hot(BUSY).items()}
    few = {name: run(small, one) for name, one in hot(SMALL).items()}
    assert {name: ran.rows for name, ran in many.items()} == {
        name: ran.rows for name, ran in few.items()
    }
    dear = {
        name: (many[name].steps, few[name].steps)
        for name in many
        if many[name].steps > TOLERANCE * few[name].steps
    }
    assert dear == {}
    assert many["claim"].rows == 5
