"""Create: new jobs, and the keys that make a call repeatable (promise 8)."""

from collections.abc import Sequence
from dataclasses import dataclass

from compute_orchestrator.db.sessions import Statement, WriteSession
from compute_orchestrator.db.statements.rows import (
    CLOCK_POSTGRESQL,
    JOB_COLUMNS,
    alone_with_postgresql,
    batch,
    job_from,
    moment_postgresql,
)
from compute_orchestrator.domain.job import Job, NewJob
from compute_orchestrator.domain.lifecycle import Action, Status, Step
from compute_orchestrator.domain.values import PRODUCER, JobId, micros

# The n-th item has the n-th id. SQLite does not promise that of AUTOINCREMENT, so the ids are given
# here; the sequence still moves past them, and there is one writer, so nobody else takes one in
# between. PostgreSQL takes them from its sequence in the order of the SELECT.
CREATE = Statement(
    sqlite=f"""
        WITH item AS (
            SELECT key, value,
                   coalesce(value ->> 'run_at', :now + (value ->> 'run_in'), :now) AS run_at
              FROM json_each(:jobs)
        )
        INSERT INTO jobs (
            id, queue, name, payload, priority, status, delayed,
            attempt, retry_count, max_retries, release_count, run_at,
            lease_seconds, timeout_seconds,
            retry_base_seconds, retry_factor, retry_max_seconds, retry_jitter,
            cancel_requested, tags, created_at, updated_at)
        SELECT key + 1 + (SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'jobs'),
               value ->> 'queue', value ->> 'name', value ->> 'payload', value ->> 'priority',
               'queued', run_at > :now,
               0, 0, value ->> 'max_retries', 0, run_at,
               value ->> 'lease_seconds', value ->> 'timeout_seconds',
               value ->> 'retry_base_seconds', value ->> 'retry_factor',
               value ->> 'retry_max_seconds', value ->> 'retry_jitter',
               0, value ->> 'tags', :now, :now
          FROM item
         ORDER BY key
        RETURNING {JOB_COLUMNS}
    """,
    postgresql=f"""
        WITH {CLOCK_POSTGRESQL},
             item AS (
            SELECT n, value,
                   coalesce({moment_postgresql("CAST(value ->> 'run_at' AS bigint)")},
                            clock.now
                            + CAST(value ->> 'run_in' AS bigint) * interval '1 microsecond',
                            clock.now) AS run_at
              FROM jsonb_array_elements(CAST(:jobs AS jsonb)) WITH ORDINALITY AS its(value, n)
             CROSS JOIN clock
        )
        INSERT INTO jobs (
            queue, name, payload, priority, status, delayed,
            attempt, retry_count, max_retries, release_count, run_at,
            lease_seconds, timeout_seconds,
            retry_base_seconds, retry_factor, retry_max_seconds, retry_jitter,
            cancel_requested, tags, created_at, updated_at)
        SELECT value ->> 'queue', value ->> 'name', CAST(value ->> 'payload' AS json),
               CAST(value ->> 'priority' AS integer),
               'queued', CASE WHEN run_at > clock.now THEN 1 ELSE 0 END,
               0, 0, CAST(value ->> 'max_retries' AS integer), 0, run_at,
               CAST(value ->> 'lease_seconds' AS float8),
               CAST(value ->> 'timeout_seconds' AS float8),
               CAST(value ->> 'retry_base_seconds' AS float8),
               CAST(value ->> 'retry_factor' AS float8),
               CAST(value ->> 'retry_max_seconds' AS float8),
               CAST(value ->> 'retry_jitter' AS float8),
               0, CAST(value ->> 'tags' AS json), clock.now, clock.now
          FROM item CROSS JOIN clock
         ORDER BY n
        RETURNING {JOB_COLUMNS}
    """,
)

INDEX_TAGS = Statement(
    sqlite="""
        INSERT OR IGNORE INTO job_tags (tag, job_id)
        SELECT value ->> 'tag', value ->> 'job_id' FROM json_each(:tags)
    """,
    postgresql="""
        INSERT INTO job_tags (tag, job_id)
        SELECT tag, job_id
          FROM jsonb_to_recordset(CAST(:tags AS jsonb)) AS its(tag text, job_id bigint)
        ON CONFLICT DO NOTHING
    """,
)

# Two creates with one key look one after the other, where there is more than one writer.
ALONE_WITH_KEYS = Statement(
    sqlite="SELECT 1", postgresql=alone_with_postgresql("'create ' || key", "key text")
)

FIND_KEYS = Statement(
    sqlite="""
        SELECT key, body_hash, first_job_id, job_count
          FROM idempotency_keys
         WHERE key IN (SELECT value FROM json_each(:keys))
         ORDER BY key, part
    """,
    postgresql="""
        SELECT its.*
          FROM jsonb_array_elements_text(CAST(:keys AS jsonb)) AS wanted(key)
         CROSS JOIN LATERAL (SELECT key, body_hash, first_job_id, job_count
                               FROM idempotency_keys
                              WHERE idempotency_keys.key = wanted.key
                              ORDER BY part) AS its
    """,
)

# A row is a run of consecutive ids. On SQLite a call's ids are one run; on PostgreSQL others take
# ids in between.
REMEMBER_KEYS = Statement(
    sqlite="""
        INSERT INTO idempotency_keys (key, part, body_hash, first_job_id, job_count)
        SELECT value ->> 'key', value ->> 'part', value ->> 'body_hash',
               value ->> 'first_job_id', value ->> 'job_count'
          FROM json_each(:keys)
    """,
    postgresql="""
        INSERT INTO idempotency_keys (key, part, body_hash, first_job_id, job_count)
        SELECT key, part, body_hash, first_job_id, job_count
          FROM jsonb_to_recordset(CAST(:keys AS jsonb))
               AS k(key text, part integer, body_hash text, first_job_id bigint, job_count integer)
         ORDER BY key, part
    """,
)


@dataclass(frozen=True, slots=True)
class KeyedCall:
    """An idempotency key, the SHA-256 of the body it came with, and the jobs it made, in order."""

    key: str
    body_hash: str
    job_ids: tuple[JobId, ...]


async def create_jobs(session: WriteSession, jobs: Sequence[NewJob]) -> list[Job]:
    """Insert jobs; the answer is in the order of the list."""
    if not jobs:
        return []
    rows = await session.fetch(CREATE, jobs=batch(map(_item, jobs)))
    created = sorted((job_from(row) for row in rows), key=lambda job: job.id)
    tags = [
        {"tag": tag, "job_id": job.id}
        for new, job in zip(jobs, created, strict=True)
        for tag in new.tags
    ]
    if tags:
        await session.run(INDEX_TAGS, tags=batch(tags))
    session.record([_step(job) for job in created])
    return created


async def find_keys(session: WriteSession, keys: Sequence[str]) -> dict[str, KeyedCall]:
    """The calls that these keys were used for."""
    if not session.alone:
        await session.fetch(ALONE_WITH_KEYS, its=batch({"key": key} for key in keys))
    rows = await session.fetch(FIND_KEYS, keys=batch(keys))
    found: dict[str, KeyedCall] = {}
    for key, body_hash, first, count in rows:
        before = found[key].job_ids if key in found else ()
        found[key] = KeyedCall(key, body_hash, (*before, *map(JobId, range(first, first + count))))
    return found


async def remember_keys(session: WriteSession, calls: Sequence[KeyedCall]) -> None:
    """Bind keys to jobs. The primary key refuses a second use."""
    await session.run(
        REMEMBER_KEYS,
        keys=batch(
            {
                "key": call.key,
                "part": part,
                "body_hash": call.body_hash,
                "first_job_id": first,
                "job_count": count,
            }
            for call in calls
            for part, (first, count) in enumerate(_runs(call.job_ids))
        ),
    )


def _runs(ids: Sequence[JobId]) -> list[tuple[JobId, int]]:
    """Ascending ids as runs: where each begins, and how many it has."""
    runs: list[tuple[JobId, int]] = []
    for job_id in ids:
        if runs and job_id == sum(runs[-1]):
            runs[-1] = (runs[-1][0], runs[-1][1] + 1)
        else:
            runs.append((job_id, 1))
    return runs


def _item(job: NewJob) -> dict[str, object]:
    return {
        "queue": job.queue,
        "name": job.name,
        "payload": job.payload,
        "priority": job.priority,
        "max_retries": job.max_retries,
        "run_at": job.run_at,
        "run_in": None if job.run_in_seconds is None else micros(job.run_in_seconds),
        "lease_seconds": job.lease_seconds,
        "timeout_seconds": job.timeout_seconds,
        "retry_base_seconds": job.retry.base_seconds,
        "retry_factor": job.retry.factor,
        "retry_max_seconds": job.retry.max_seconds,
        "retry_jitter": job.retry.jitter,
        "tags": batch(job.tags) if job.tags else "[]",
    }


def _step(job: Job) -> Step:
    return Step(
        job_id=job.id,
        queue=job.queue,
        action=Action.CREATE,
        from_status=None,
        to_status=Status.QUEUED,
        actor=PRODUCER,
        at=job.created_at,
        attempt=0,
        delayed_to=job.delayed,
    )
