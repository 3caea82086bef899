"""Report: a success is one statement; what needs a decision is read here and written by leave.py.

Holds promise 3 (the token is the fence) and promise 8 (a report that was taken is found again in
the trail).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from compute_orchestrator.db.clock import seconds_between
from compute_orchestrator.db.sessions import Statement, WriteSession
from compute_orchestrator.db.statements.rows import (
    CLOCK_POSTGRESQL,
    HELD_POSTGRESQL,
    JOB_COLUMNS,
    QUALIFIED_JOB_COLUMNS,
    batch,
    job_from,
)
from compute_orchestrator.domain.job import Job
from compute_orchestrator.domain.lease import LeaseKey
from compute_orchestrator.domain.lifecycle import Action, Status, Step
from compute_orchestrator.domain.values import JobId, JsonText, LeaseToken, Micros

# On PostgreSQL the leases beside the successes are locked with them: whoever takes several locks in
# a transaction takes them in the order of the ids, or two that do so wait for each other.
SUCCEED = Statement(
    sqlite=f"""
        UPDATE jobs
           SET status = 'succeeded',
               result = success.result,
               finished_at = :now,
               lease_token = NULL, lease_expires_at = NULL, held_seconds = NULL,
               request_id = NULL, request_slot = NULL,
               updated_at = :now
          FROM (SELECT value ->> 'job_id' AS job_id, value ->> 'lease_token' AS lease_token,
                       value ->> 'result' AS result
                  FROM json_each(:successes)) AS success
         WHERE jobs.id = success.job_id
           AND jobs.lease_token = success.lease_token
           AND jobs.status = 'running'
        RETURNING {JOB_COLUMNS}
    """,
    postgresql=f"""
        WITH {CLOCK_POSTGRESQL},
             success AS MATERIALIZED (
            SELECT its.*
              FROM (SELECT job_id, lease_token, result, true AS done
                      FROM jsonb_to_recordset(CAST(:successes AS jsonb))
                           AS s(job_id bigint, lease_token text, result text)
                     UNION ALL
                    SELECT job_id, lease_token, NULL, false
                      FROM jsonb_to_recordset(CAST(:beside AS jsonb))
                           AS b(job_id bigint, lease_token text)
                     ORDER BY job_id) AS its
             CROSS JOIN LATERAL ({HELD_POSTGRESQL}) AS held
        )
        UPDATE jobs
           SET status = 'succeeded',
               result = CAST(success.result AS json),
               finished_at = clock.now,
               lease_token = NULL, lease_expires_at = NULL, held_seconds = NULL,
               request_id = NULL, request_slot = NULL,
               updated_at = clock.now
          FROM success, clock
         WHERE success.done
           AND jobs.id = success.job_id
           AND jobs.lease_token = success.lease_token
           AND jobs.status = 'running'
        RETURNING {QUALIFIED_JOB_COLUMNS}
    """,
)

HELD = Statement(
    sqlite=f"""
        SELECT :now AS store_now, {QUALIFIED_JOB_COLUMNS}
          FROM json_each(:keys) AS held
         CROSS JOIN jobs
            ON jobs.id = held.value ->> 'job_id'
           AND jobs.lease_token = held.value ->> 'lease_token'
           AND jobs.status = 'running'
    """,
    postgresql=f"""
        WITH {CLOCK_POSTGRESQL}
        SELECT clock.now AS store_now, held.*
          FROM (SELECT * FROM jsonb_to_recordset(CAST(:keys AS jsonb))
                              AS b(job_id bigint, lease_token text)
                 ORDER BY job_id) AS its
         CROSS JOIN LATERAL (SELECT {JOB_COLUMNS} FROM jobs
                              WHERE jobs.id = its.job_id
                                AND jobs.lease_token = its.lease_token
                                AND jobs.status = 'running'
                                FOR UPDATE) AS held
         CROSS JOIN clock
    """,
)

LEFT_BEFORE = Statement(
    sqlite="""
        SELECT job_events.job_id, job_events.lease_token, action, actor, reason
          FROM json_each(:keys) AS left
         CROSS JOIN job_events
            ON job_events.job_id = left.value ->> 'job_id'
           AND job_events.lease_token = left.value ->> 'lease_token'
           AND job_events.from_status = 'running'
    """,
    postgresql="""
        SELECT its.*
          FROM jsonb_to_recordset(CAST(:keys AS jsonb)) AS ended(job_id bigint, lease_token text)
         CROSS JOIN LATERAL (SELECT job_id, lease_token, action, actor, reason
                               FROM job_events
                              WHERE job_events.job_id = ended.job_id
                                AND job_events.lease_token = ended.lease_token
                                AND from_status = 'running'
                             OFFSET 0) AS its
    """,
)


@dataclass(frozen=True, slots=True)
class Success:
    """A lease that ended well. `result` is JSON text."""

    key: LeaseKey
    worker_id: str
    result: JsonText | None


@dataclass(frozen=True, slots=True)
class Held:
    """A job under the lease that was named, and the store's time when it was read."""

    job: Job
    now: Micros


@dataclass(frozen=True, slots=True)
class LeftBefore:
    """The step by which a lease ended, as the trail tells it."""

    action: Action
    actor: str
    reason: str | None


async def succeed(
    session: WriteSession, successes: Sequence[Success], beside: Sequence[LeaseKey] = ()
) -> dict[JobId, Job]:
    """Finish the jobs whose lease stands. `beside` are leases that this transaction ends too."""
    rows = await session.fetch(
        SUCCEED,
        successes=batch(
            {
                "job_id": success.key.job_id,
                "lease_token": success.key.lease_token,
                "result": success.result,
            }
            for success in successes
        ),
        beside=_keys(beside),
    )
    finished = {job.id: job for job in map(job_from, rows)}
    session.record(
        [
            _step(success, finished[success.key.job_id])
            for success in successes
            if success.key.job_id in finished
        ]
    )
    return finished


async def held_jobs(session: WriteSession, keys: Sequence[LeaseKey]) -> dict[LeaseKey, Held]:
    """The running jobs under these leases."""
    rows = await session.fetch(HELD, keys=_keys(keys))
    held: dict[LeaseKey, Held] = {}
    for row in rows:
        job = job_from(row[1:])
        held[LeaseKey(job.id, job.lease_token or LeaseToken(""))] = Held(job, row[0])
    return held


async def left_before(
    session: WriteSession, keys: Sequence[LeaseKey]
) -> dict[LeaseKey, LeftBefore]:
    """How these leases ended, where the trail knows them."""
    rows = await session.fetch(LEFT_BEFORE, keys=_keys(keys))
    return {LeaseKey(row[0], row[1]): LeftBefore(Action(row[2]), row[3], row[4]) for row in rows}


def _keys(keys: Sequence[LeaseKey]) -> str:
    return batch({"job_id": key.job_id, "lease_token": key.lease_token} for key in keys)


def _step(success: Success, after: Job) -> Step:
    return Step(
        job_id=after.id,
        queue=after.queue,
        action=Action.SUCCEED,
        from_status=Status.RUNNING,
        to_status=Status.SUCCEEDED,
        actor=success.worker_id,
        at=after.updated_at,
        attempt=after.attempt,
        lease_token=success.key.lease_token,
        ran_seconds=seconds_between(after.locked_at or after.updated_at, after.updated_at),
    )
