"""Read: jobs by id, pages of jobs, pages of a job's trail. Keyset, never offset."""

from collections.abc import Sequence
from dataclasses import dataclass

from compute_orchestrator.db.sessions import ReadSession, Statement
from compute_orchestrator.db.statements.rows import JOB_COLUMNS, batch, job_from
from compute_orchestrator.domain.job import Job
from compute_orchestrator.domain.listing import Event, JobFilter
from compute_orchestrator.domain.values import JobId

LARGEST_ID = 2**63 - 1

FIND = Statement(
    sqlite=f"SELECT {JOB_COLUMNS} FROM jobs WHERE id IN (SELECT value FROM json_each(:ids))",
)

_LEAN = {
    "payload": "iif(:with_payload, payload, NULL)",
    "result": "iif(:with_result, result, NULL)",
    "checkpoint": "iif(:with_checkpoint, checkpoint, NULL)",
}
_LEAN_COLUMNS = ", ".join(_LEAN.get(field, field) for field in Job._fields)

_MATCHES = """
    (:statuses IS NULL OR status IN (SELECT value FROM json_each(:statuses)))
    AND (:queues IS NULL OR queue IN (SELECT value FROM json_each(:queues)))
    AND (:names IS NULL OR name IN (SELECT value FROM json_each(:names)))
    AND (:workers IS NULL OR locked_by IN (SELECT value FROM json_each(:workers)))
    AND (:created_after IS NULL OR created_at > :created_after)
    AND (:created_before IS NULL OR created_at < :created_before)
"""


def _page(window: str, order: str) -> str:
    """A page out of a window of ids. The last row is the window's end: its id and its size."""
    return f"""
        WITH looked_at AS MATERIALIZED ({window}),
             page AS (SELECT {_LEAN_COLUMNS} FROM jobs
                       WHERE id IN (SELECT id FROM looked_at) AND {_MATCHES}
                       ORDER BY id {order} LIMIT :n)
        SELECT * FROM page
    """


def _by_id(order: str) -> str:
    beyond = "<" if order == "DESC" else ">"
    return f"""
        SELECT id FROM jobs WHERE id {beyond} :after ORDER BY id {order} LIMIT :window
    """


def _by_tag(order: str) -> str:
    beyond = "<" if order == "DESC" else ">"
    return f"""
        SELECT DISTINCT job_id AS id FROM job_tags
         WHERE tag IN (SELECT value FROM json_each(:tags)) AND job_id {beyond} :after
         ORDER BY job_id {order} LIMIT :window
    """


PAGES = {
    (newest, tagged): Statement(
        sqlite=_page(
            (_by_tag if tagged else _by_id)("DESC" if newest else "ASC"),
            "DESC" if newest else "ASC",
        ),
    )
    for newest in (True, False)
    for tagged in (True, False)
}

WINDOWS = {
    (newest, tagged): Statement(
        sqlite=f"""
            SELECT count(*), {"min" if newest else "max"}(id)
              FROM ({(_by_tag if tagged else _by_id)("DESC" if newest else "ASC")})
        """,
    )
    for newest in (True, False)
    for tagged in (True, False)
}

SCHEMA_REVISION = Statement(sqlite="SELECT version_num FROM alembic_version")

EVENTS = Statement(
    sqlite="""
        SELECT id, action, from_status, to_status, actor, reason, attempt, at
          FROM job_events
         WHERE job_id = :job_id AND id > :after
         ORDER BY id LIMIT :n
    """,
)


@dataclass(frozen=True, slots=True)
class Page:
    """Some jobs, and the id after which the next page begins; None at the end."""

    jobs: Sequence[Job]
    next_after: int | None


async def schema_revision(session: ReadSession) -> str | None:
    """The revision of the schema that the store is at."""
    rows = await session.fetch(SCHEMA_REVISION)
    return rows[0][0] if rows else None


async def find_jobs(session: ReadSession, ids: Sequence[JobId]) -> dict[JobId, Job]:
    """Jobs by id; those that are missing in the answer do not exist."""
    if not ids:
        return {}
    rows = await session.fetch(FIND, ids=batch(ids))
    return {job.id: job for job in map(job_from, rows)}


async def page_of_jobs(
    session: ReadSession, wanted: JobFilter, after: int | None, limit: int, window: int
) -> Page:
    """At most `limit` jobs out of the next `window` ones, so that no filter makes a long scan."""
    kind = (wanted.newest_first, bool(wanted.tags))
    if after is None:
        after = LARGEST_ID if wanted.newest_first else 0
    start = {"after": after, "window": window, "tags": batch(wanted.tags)}
    rows = await session.fetch(
        PAGES[kind],
        **start,
        n=limit,
        statuses=_any_of(wanted.statuses),
        queues=_any_of(wanted.queues),
        names=_any_of(wanted.names),
        workers=_any_of(wanted.workers),
        created_after=wanted.created_after,
        created_before=wanted.created_before,
        with_payload="payload" in wanted.include,
        with_result="result" in wanted.include,
        with_checkpoint="checkpoint" in wanted.include,
    )
    jobs = [job_from(row) for row in rows]
    if len(jobs) == limit:
        return Page(jobs, jobs[-1].id)
    looked_at, last_id = (await session.fetch(WINDOWS[kind], **start))[0]
    return Page(jobs, last_id if looked_at == window else None)


async def page_of_events(
    session: ReadSession, job_id: JobId, after: int, limit: int
) -> Sequence[Event]:
    """The trail of a job, oldest first."""
    rows = await session.fetch(EVENTS, job_id=job_id, after=after, n=limit)
    return [Event._make(row) for row in rows]


def _any_of(values: Sequence[str]) -> str | None:
    return batch(values) if values else None
