"""Create: new jobs, and the keys that make a create repeatable (promise 8)."""

from collections.abc import Sequence
from dataclasses import dataclass

from compute_orchestrator.db.sessions import Statement, WriteSession
from compute_orchestrator.db.statements.rows import JOB_COLUMNS, batch, job_from
from compute_orchestrator.domain.job import Job, NewJob
from compute_orchestrator.domain.lifecycle import Action, Status, Step
from compute_orchestrator.domain.values import PRODUCER, JobId, micros

# The ids are given here and not by AUTOINCREMENT, so that the n-th item has the n-th id; the
# sequence still moves past them. There is one writer, so nobody else takes one in between.
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
)

INDEX_TAGS = Statement(
    sqlite="""
        INSERT OR IGNORE INTO job_tags (tag, job_id)
        SELECT value ->> 'tag', value ->> 'job_id' FROM json_each(:tags)
    """,
)

FIND_KEYS = Statement(
    sqlite="""
        SELECT key, body_hash, first_job_id
          FROM idempotency_keys
         WHERE key IN (SELECT value FROM json_each(:keys))
    """,
)

REMEMBER_KEYS = Statement(
    sqlite="""
        INSERT INTO idempotency_keys (key, body_hash, first_job_id, job_count)
        SELECT value ->> 'key', value ->> 'body_hash', value ->> 'first_job_id', 1
          FROM json_each(:keys)
    """,
)


@dataclass(frozen=True, slots=True)
class KeyedCall:
    """An idempotency key, the SHA-256 of the body it came with, and the job it made."""

    key: str
    body_hash: str
    first_job_id: JobId


async def create_jobs(session: WriteSession, jobs: Sequence[NewJob]) -> list[Job]:
    """Insert jobs; the answer is in the order of the list."""
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
    rows = await session.fetch(FIND_KEYS, keys=batch(keys))
    return {row[0]: KeyedCall(row[0], row[1], row[2]) for row in rows}


async def remember_keys(session: WriteSession, calls: Sequence[KeyedCall]) -> None:
    """Bind keys to jobs. The primary key refuses a second use."""
    await session.run(
        REMEMBER_KEYS,
        keys=batch(
            {
                "key": call.key,
                "body_hash": call.body_hash,
                "first_job_id": call.first_job_id,
            }
            for call in calls
        ),
    )


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
