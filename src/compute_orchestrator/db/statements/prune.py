"""Prune: delete jobs that finished long ago, with their tags, their trail and their keys."""

from compute_orchestrator.db.sessions import Statement, WriteSession
from compute_orchestrator.db.statements.rows import CLOCK_POSTGRESQL, IDS_POSTGRESQL, batch
from compute_orchestrator.domain.values import MICROS_PER_SECOND, JobId

FINISHED_BEFORE = Statement(
    sqlite="""
        SELECT id FROM jobs
         WHERE finished_at IS NOT NULL AND finished_at <= :now - :retention
         ORDER BY finished_at LIMIT :n
    """,
    postgresql=f"""
        WITH {CLOCK_POSTGRESQL}
        SELECT id FROM jobs
         WHERE finished_at IS NOT NULL
           AND finished_at <= (SELECT now - CAST(:retention AS bigint) * interval '1 microsecond'
                                 FROM clock)
         ORDER BY finished_at LIMIT :n
           FOR UPDATE SKIP LOCKED
    """,
)


def _delete_of_postgresql(table: str, found: str) -> str:
    """Delete rows by their place, found by one look into an index for each job: OFFSET keeps the
    planner from going through the table instead.
    """
    return f"""
        DELETE FROM {table}
         WHERE ctid = ANY (ARRAY(
            SELECT its.ctid
              FROM jobs AS old
             {found}
             WHERE old.id IN ({IDS_POSTGRESQL})))
    """


DELETE_TAGS = Statement(
    sqlite="""
        DELETE FROM job_tags
         WHERE (tag, job_id) IN (SELECT tag.value, jobs.id
                                   FROM json_each(:ids) AS old
                                  CROSS JOIN jobs ON jobs.id = old.value
                                  CROSS JOIN json_each(jobs.tags) AS tag)
    """,
    postgresql=_delete_of_postgresql(
        "job_tags",
        """
             CROSS JOIN json_array_elements_text(old.tags) AS wanted(tag)
             CROSS JOIN LATERAL (SELECT ctid FROM job_tags
                                  WHERE job_tags.tag = wanted.tag AND job_tags.job_id = old.id
                                 OFFSET 0) AS its
        """,
    ),
)

DELETE_EVENTS = Statement(
    sqlite="DELETE FROM job_events WHERE job_id IN (SELECT value FROM json_each(:ids))",
    postgresql=_delete_of_postgresql(
        "job_events",
        """
             CROSS JOIN LATERAL (SELECT ctid FROM job_events
                                  WHERE job_events.job_id = old.id OFFSET 0) AS its
        """,
    ),
)

DELETE_JOBS = Statement(
    sqlite="DELETE FROM jobs WHERE id IN (SELECT value FROM json_each(:ids))",
    postgresql=f"DELETE FROM jobs WHERE id IN ({IDS_POSTGRESQL})",
)

# The run of a key that a job belongs to, if any: runs don't overlap, so it is the last one that
# begins at the job or before.
_RUN_SQLITE = """
    SELECT run.key, run.part, run.first_job_id, run.job_count
      FROM json_each(:ids) AS old
     CROSS JOIN idempotency_keys AS run
        ON run.first_job_id = (SELECT max(first_job_id) FROM idempotency_keys
                                WHERE first_job_id <= old.value)
       AND run.first_job_id + run.job_count > old.value
"""
_RUN_POSTGRESQL = f"""
    SELECT run.*
      FROM ({IDS_POSTGRESQL}) AS old(id)
     CROSS JOIN LATERAL (SELECT ctid, first_job_id, job_count FROM idempotency_keys
                          WHERE first_job_id <= old.id
                          ORDER BY first_job_id DESC LIMIT 1) AS run
     WHERE run.first_job_id + run.job_count > old.id
"""

# Two that prune jobs of one run look one after the other, where there is more than one writer: else
# each sees the other's jobs still there, and the key stays.
ALONE_WITH_RUNS = Statement(
    sqlite="SELECT 1",
    postgresql=f"""
        SELECT pg_advisory_xact_lock(one.number)
          FROM (SELECT DISTINCT hashtextextended('prune ' || run.first_job_id, 0) AS number
                  FROM ({_RUN_POSTGRESQL}) AS run
                 WHERE run.job_count > 1
                 ORDER BY number) AS one
    """,
)

# After the jobs: a key goes with the last job of each of its runs.
DELETE_KEYS = Statement(
    sqlite=f"""
        DELETE FROM idempotency_keys
         WHERE (key, part) IN (
            SELECT run.key, run.part FROM ({_RUN_SQLITE}) AS run
             WHERE NOT EXISTS (SELECT 1 FROM jobs
                                WHERE jobs.id >= run.first_job_id
                                  AND jobs.id < run.first_job_id + run.job_count))
    """,
    postgresql=f"""
        DELETE FROM idempotency_keys
         WHERE ctid = ANY (ARRAY(
            SELECT run.ctid FROM ({_RUN_POSTGRESQL}) AS run
             WHERE NOT EXISTS (SELECT 1 FROM jobs
                                WHERE jobs.id >= run.first_job_id
                                  AND jobs.id < run.first_job_id + run.job_count)))
    """,
)


async def prune_finished(session: WriteSession, retention_seconds: float, limit: int) -> int:
    """Delete at most `limit` jobs that finished longer ago than this; how many it were."""
    rows = await session.fetch(
        FINISHED_BEFORE, retention=round(retention_seconds * MICROS_PER_SECOND), n=limit
    )
    ids: list[JobId] = [row[0] for row in rows]
    if ids:
        old = batch(ids)
        if not session.alone:
            await session.fetch(ALONE_WITH_RUNS, ids=old)
        for statement in (DELETE_TAGS, DELETE_EVENTS, DELETE_JOBS, DELETE_KEYS):
            await session.run(statement, ids=old)
    return len(ids)
