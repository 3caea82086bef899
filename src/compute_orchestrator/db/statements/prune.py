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

# A call makes one job, so its key goes with that one.
DELETE_KEYS = Statement(
    sqlite="DELETE FROM idempotency_keys WHERE first_job_id IN (SELECT value FROM json_each(:ids))",
    postgresql=_delete_of_postgresql(
        "idempotency_keys",
        """
             CROSS JOIN LATERAL (SELECT ctid FROM idempotency_keys
                                  WHERE idempotency_keys.first_job_id = old.id OFFSET 0) AS its
        """,
    ),
)


async def prune_finished(session: WriteSession, retention_seconds: float, limit: int) -> int:
    """Delete at most `limit` jobs that finished longer ago than this; how many it were."""
    rows = await session.fetch(
        FINISHED_BEFORE, retention=round(retention_seconds * MICROS_PER_SECOND), n=limit
    )
    ids: list[JobId] = [row[0] for row in rows]
    if ids:
        old = batch(ids)
        for statement in (DELETE_TAGS, DELETE_EVENTS, DELETE_KEYS, DELETE_JOBS):
            await session.run(statement, ids=old)
    return len(ids)
