"""Fills a database by SQL, in seconds where creates would take an hour.

The rows are those that the server writes for the same jobs: their tags and their trail too. Only
the counters of `GET /stats` are left alone; no claim reads them.
"""

import asyncio
import json
import os
import sqlite3
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import asyncpg

from bench.conversations import NAME, PAYLOAD, RESULT, TAGS, WORKER

DAY = 86_400_000_000  # microseconds, as all times in the file


@dataclass(frozen=True)
class Backlog:
    finished: int
    queued: int
    # Queued for tomorrow, of higher priority than the others.
    delayed: int


_JOBS = """
    WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < :count)
    INSERT INTO jobs (queue, name, payload, tags, priority, status, delayed, attempt, retry_count,
                      max_retries, release_count, run_at, retry_base_seconds, retry_factor,
                      retry_max_seconds, retry_jitter, cancel_requested, locked_by, locked_at,
                      result, created_at, updated_at, finished_at)
    SELECT 'default', :name, :payload, :tags, :priority, :status, :delayed, :attempt, 0,
           3, 0, :run_at + n, 1, 2,
           3600, 0.2, 0, :worker, :locked_at + n,
           :result, :created_at + n, :created_at + n, :finished_at + n
      FROM numbers
"""
_TAGS = """
    INSERT INTO job_tags (tag, job_id) SELECT tag.value, jobs.id FROM json_each(:tags) AS tag, jobs
"""
_EVENTS = """
    INSERT INTO job_events (job_id, action, from_status, to_status, actor, attempt, at, lease_token)
    SELECT jobs.id, step.action, step.from_status, step.to_status, step.actor, step.attempt,
           jobs.created_at, step.lease_token
      FROM jobs
      CROSS JOIN (SELECT 'create' AS action, NULL AS from_status, 'queued' AS to_status,
                   'producer' AS actor, 0 AS attempt, NULL AS lease_token
            UNION ALL
            SELECT 'claim', 'queued', 'running', :worker, 1, :token
            UNION ALL
            SELECT 'succeed', 'running', 'succeeded', :worker, 1, :token) AS step
     WHERE step.action = 'create' OR jobs.status = 'succeeded'
"""


def fill(database: Path, backlog: Backlog) -> None:
    """The file has the server's schema and no server; afterwards it is on the disk."""
    now = time.time_ns() // 1000
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        # Nobody needs a half-filled file: no journal, one sync at the end.
        for pragma in ("journal_mode = OFF", "synchronous = OFF", "cache_size = -262144"):
            connection.execute(f"PRAGMA {pragma}")
        connection.execute("BEGIN")
        _insert(connection, backlog.finished, now - DAY, finished=True)
        _insert(connection, backlog.delayed, now + DAY, priority=50)
        _insert(connection, backlog.queued, now - DAY // 2)
        connection.execute(_TAGS, {"tags": json.dumps(TAGS)})
        connection.execute(_EVENTS, {"worker": WORKER, "token": "0" * 32})
        connection.execute("COMMIT")
    with database.open("rb") as file:
        os.fsync(file.fileno())


def _insert(
    connection: sqlite3.Connection,
    count: int,
    run_at: int,
    *,
    finished: bool = False,
    priority: int = 0,
) -> None:
    if count == 0:
        return
    now = time.time_ns() // 1000
    run = {
        "status": "succeeded",
        "attempt": 1,
        "worker": WORKER,
        "locked_at": run_at,
        "result": json.dumps(RESULT),
        "finished_at": run_at,
    }
    wait = {
        "status": "queued",
        "attempt": 0,
        "worker": None,
        "locked_at": None,
        "result": None,
        "finished_at": None,
    }
    connection.execute(
        _JOBS,
        {
            "count": count,
            "name": NAME,
            "payload": json.dumps(PAYLOAD),
            "tags": json.dumps(TAGS),
            "priority": priority,
            "delayed": run_at > now,
            "run_at": run_at,
            "created_at": min(run_at, now - DAY // 2),
        }
        | (run if finished else wait),
    )


_JOBS_POSTGRESQL = """
    INSERT INTO jobs (queue, name, payload, tags, priority, status, delayed, attempt, retry_count,
                      max_retries, release_count, run_at, retry_base_seconds, retry_factor,
                      retry_max_seconds, retry_jitter, cancel_requested, locked_by, locked_at,
                      result, created_at, updated_at, finished_at)
    SELECT 'default', $4, $5, $6, CASE WHEN later THEN 50 ELSE 0 END,
           CASE WHEN done THEN 'succeeded' ELSE 'queued' END, CAST(later AS integer),
           CAST(done AS integer), 0,
           3, 0, at + CASE WHEN later THEN 2 ELSE 0 END * interval '1 day',
           1, 2, 3600, 0.2, 0, CASE WHEN done THEN $7 END, CASE WHEN done THEN at END,
           CASE WHEN done THEN CAST($8 AS json) END, at, at, CASE WHEN done THEN at END
      FROM (SELECT n <= $1 AS done, n > $2 AS later,
                   now() - interval '1 day' + n * interval '1 microsecond' AS at
              FROM generate_series(1, CAST($3 AS bigint)) AS its(n)) AS each
"""
_TAGS_POSTGRESQL = """
    INSERT INTO job_tags (tag, job_id)
    SELECT tag, jobs.id FROM jobs CROSS JOIN json_array_elements_text(tags) AS its(tag)
"""


def fill_postgresql(url: str, backlog: Backlog) -> None:
    """The same in a database. Afterwards it is vacuumed, analyzed and on the disk."""
    asyncio.run(_fill_postgresql(url, backlog))


async def _fill_postgresql(url: str, backlog: Backlog) -> None:
    connection = await asyncpg.connect(url)
    waiting = backlog.finished + backlog.queued
    texts = (NAME, json.dumps(PAYLOAD), json.dumps(TAGS), WORKER, json.dumps(RESULT))
    await connection.execute(
        _JOBS_POSTGRESQL, backlog.finished, waiting, waiting + backlog.delayed, *texts
    )
    await connection.execute(_TAGS_POSTGRESQL)
    events = _EVENTS.replace(":worker", "$1").replace(":token", "$2")
    await connection.execute(events, WORKER, "0" * 32)
    for command in ("VACUUM ANALYZE", "CHECKPOINT"):
        await connection.execute(command)
    await connection.close()
