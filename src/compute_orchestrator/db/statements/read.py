"""Read: jobs by id, pages of jobs, pages of a job's trail. Keyset, never offset."""

from collections.abc import Sequence
from dataclasses import dataclass

from compute_orchestrator.db.sessions import ReadSession, Statement, WriteSession
from compute_orchestrator.db.statements.rows import IDS_POSTGRESQL, JOB_COLUMNS, batch, job_from
from compute_orchestrator.domain.job import Job
from compute_orchestrator.domain.listing import Event, JobFilter
from compute_orchestrator.domain.values import LARGEST_INTEGER, JobId

FIND = Statement(
    sqlite=f"SELECT {JOB_COLUMNS} FROM jobs WHERE id IN (SELECT value FROM json_each(:ids))",
    postgresql=f"SELECT {JOB_COLUMNS} FROM jobs WHERE id IN ({IDS_POSTGRESQL})",
)

FIND_TO_CHANGE = Statement(
    sqlite=f"SELECT {JOB_COLUMNS} FROM jobs WHERE id IN (SELECT value FROM json_each(:ids))",
    postgresql=f"""
        SELECT {JOB_COLUMNS} FROM jobs WHERE id IN ({IDS_POSTGRESQL}) ORDER BY id FOR UPDATE
    """,
)

_LEAN = {
    "payload": "iif(:with_payload, payload, NULL)",
    "result": "iif(:with_result, result, NULL)",
    "checkpoint": "iif(:with_checkpoint, checkpoint, NULL)",
}
_LEAN_COLUMNS = ", ".join(_LEAN.get(field, field) for field in Job._fields)
_HEAVY_BYTES = " + ".join(f"coalesce(length(CAST({it} AS BLOB)), 0)" for it in _LEAN.values())

_LEAN_POSTGRESQL = {
    field: f"CASE WHEN CAST(:with_{field} AS boolean) THEN {field} END" for field in _LEAN
}
_LEAN_COLUMNS_POSTGRESQL = ", ".join(_LEAN_POSTGRESQL.get(field, field) for field in Job._fields)
_HEAVY_BYTES_POSTGRESQL = " + ".join(
    f"coalesce(octet_length(CAST({it} AS text)), 0)" for it in _LEAN_POSTGRESQL.values()
)

_MATCHES = """
    (:statuses IS NULL OR status IN (SELECT value FROM json_each(:statuses)))
    AND (:queues IS NULL OR queue IN (SELECT value FROM json_each(:queues)))
    AND (:names IS NULL OR name IN (SELECT value FROM json_each(:names)))
    AND (:workers IS NULL OR locked_by IN (SELECT value FROM json_each(:workers)))
    AND (:created_after IS NULL OR created_at > :created_after)
    AND (:created_before IS NULL OR created_at < :created_before)
"""


def _any(column: str, wanted: str) -> str:
    return f"""(CAST(:{wanted} AS jsonb) IS NULL
        OR {column} IN (SELECT jsonb_array_elements_text(CAST(:{wanted} AS jsonb))))"""


_MATCHES_POSTGRESQL = f"""
    {_any("status", "statuses")} AND {_any("queue", "queues")} AND {_any("name", "names")}
    AND {_any("locked_by", "workers")}
    AND (CAST(:created_after AS timestamptz) IS NULL
         OR created_at > CAST(:created_after AS timestamptz))
    AND (CAST(:created_before AS timestamptz) IS NULL
         OR created_at < CAST(:created_before AS timestamptz))
"""


def _page(looked_at: str, looked_at_postgresql: str, order: str) -> Statement:
    """The jobs that match, out of those that are looked at, and how many bytes are shown so far.

    Only ids and lengths pass through the sum: what lies beyond the largest page is never brought.
    """
    return Statement(
        sqlite=f"""
            SELECT {_LEAN_COLUMNS}, bytes
              FROM (SELECT found, heavy, sum(heavy) OVER (ORDER BY found {order}) AS bytes
                      FROM (SELECT id AS found, {_HEAVY_BYTES} AS heavy FROM jobs
                             WHERE {looked_at} AND {_MATCHES}
                             ORDER BY id {order} LIMIT :n))
             CROSS JOIN jobs ON jobs.id = found
             WHERE bytes - heavy < :largest
             ORDER BY found {order}
        """,
        postgresql=f"""
            SELECT {_LEAN_COLUMNS_POSTGRESQL}, CAST(bytes AS bigint)
              FROM (SELECT found, heavy, sum(heavy) OVER (ORDER BY found {order}) AS bytes
                      FROM (SELECT id AS found, {_HEAVY_BYTES_POSTGRESQL} AS heavy FROM jobs
                             WHERE {looked_at_postgresql} AND {_MATCHES_POSTGRESQL}
                             ORDER BY id {order} LIMIT :n) AS first_ones) AS summed
              JOIN jobs ON jobs.id = found
             WHERE bytes - heavy < :largest
             ORDER BY found {order}
        """,
    )


# The window's last id; no row where fewer are left. Each is a walk along one index.
_NEWEST_EDGE = "SELECT id FROM jobs WHERE id < :after ORDER BY id DESC LIMIT 1 OFFSET :window - 1"
_OLDEST_EDGE = "SELECT id FROM jobs WHERE id > :after ORDER BY id LIMIT 1 OFFSET :window - 1"


def _tagged(beyond: str, order: str) -> str:
    """The ids of the window. Each tag is walked no further than the window is long."""
    return f"""
        SELECT DISTINCT tagged.job_id AS id
          FROM json_each(:tags) AS wanted
         CROSS JOIN job_tags AS tagged
            ON tagged.tag = wanted.value
           AND tagged.job_id IN (SELECT walk.job_id FROM job_tags AS walk
                                  WHERE walk.tag = wanted.value AND walk.job_id {beyond} :after
                                  ORDER BY walk.job_id {order} LIMIT :window)
         ORDER BY tagged.job_id {order} LIMIT :window
    """


def _tagged_postgresql(beyond: str, order: str) -> str:
    return f"""
        SELECT DISTINCT tagged.job_id AS id
          FROM jsonb_array_elements_text(CAST(:tags AS jsonb)) AS wanted(tag)
         CROSS JOIN LATERAL (SELECT walk.job_id FROM job_tags AS walk
                              WHERE walk.tag = wanted.tag AND walk.job_id {beyond} :after
                              ORDER BY walk.job_id {order} LIMIT :window) AS tagged
         ORDER BY id {order} LIMIT :window
    """


_NEWEST_TAGGED = _tagged("<", "DESC")
_OLDEST_TAGGED = _tagged(">", "ASC")
_NEWEST_TAGGED_POSTGRESQL = _tagged_postgresql("<", "DESC")
_OLDEST_TAGGED_POSTGRESQL = _tagged_postgresql(">", "ASC")

_BEFORE = f"id < :after AND id >= coalesce(({_NEWEST_EDGE}), 0)"
_AFTER = f"id > :after AND id <= coalesce(({_OLDEST_EDGE}), {LARGEST_INTEGER})"

# By (newest first, by tag).
PAGES = {
    (True, False): _page(_BEFORE, _BEFORE, "DESC"),
    (False, False): _page(_AFTER, _AFTER, "ASC"),
    (True, True): _page(
        f"id IN ({_NEWEST_TAGGED})", f"id IN ({_NEWEST_TAGGED_POSTGRESQL})", "DESC"
    ),
    (False, True): _page(
        f"id IN ({_OLDEST_TAGGED})", f"id IN ({_OLDEST_TAGGED_POSTGRESQL})", "ASC"
    ),
}

EDGES = {
    (True, False): Statement(sqlite=_NEWEST_EDGE, postgresql=_NEWEST_EDGE),
    (False, False): Statement(sqlite=_OLDEST_EDGE, postgresql=_OLDEST_EDGE),
    (True, True): Statement(
        sqlite=f"{_NEWEST_TAGGED} OFFSET :window - 1",
        postgresql=f"{_NEWEST_TAGGED_POSTGRESQL} OFFSET :window - 1",
    ),
    (False, True): Statement(
        sqlite=f"{_OLDEST_TAGGED} OFFSET :window - 1",
        postgresql=f"{_OLDEST_TAGGED_POSTGRESQL} OFFSET :window - 1",
    ),
}

SCHEMA_REVISION = Statement(
    sqlite="SELECT version_num FROM alembic_version",
    postgresql="SELECT version_num FROM alembic_version",
)

# OFFSET hides the order from PostgreSQL, which would else walk along the ids, through the trails of
# all jobs, to be spared the sorting of this one's.
EVENTS = Statement(
    sqlite="""
        SELECT id, action, from_status, to_status, actor, reason, attempt, at
          FROM job_events
         WHERE job_id = :job_id AND id > :after
         ORDER BY id LIMIT :n
    """,
    postgresql="""
        SELECT *
          FROM (SELECT id, action, from_status, to_status, actor, reason, attempt, at
                  FROM job_events
                 WHERE job_id = :job_id AND id > :after
                OFFSET 0) AS its
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


async def find_jobs_to_change(session: WriteSession, ids: Sequence[JobId]) -> dict[JobId, Job]:
    """Jobs by id, which nobody else changes until this transaction ends."""
    if not ids:
        return {}
    rows = await session.fetch(FIND_TO_CHANGE, ids=batch(ids))
    return {job.id: job for job in map(job_from, rows)}


async def page_of_jobs(
    session: ReadSession,
    wanted: JobFilter,
    after: int | None,
    *,
    limit: int,
    window: int,
    largest: int,
) -> Page:
    """At most `limit` jobs out of the next `window` ones, so that no filter makes a long scan.

    The page ends with the job whose heavy fields bring it to `largest` bytes.
    """
    kind = (wanted.newest_first, bool(wanted.tags))
    if after is None:
        after = LARGEST_INTEGER if wanted.newest_first else 0
    start = {"after": after, "window": window, "tags": batch(wanted.tags)}
    rows = await session.fetch(
        PAGES[kind],
        **start,
        n=limit,
        largest=largest,
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
    jobs = [job_from(row[:-1]) for row in rows]
    if jobs and (len(jobs) == limit or rows[-1][-1] >= largest):
        return Page(jobs, jobs[-1].id)
    edge = await session.fetch(EDGES[kind], **start)
    return Page(jobs, edge[0][0] if edge else None)


async def page_of_events(
    session: ReadSession, job_id: JobId, after: int, limit: int
) -> Sequence[Event]:
    """The trail of a job, oldest first."""
    rows = await session.fetch(EVENTS, job_id=job_id, after=after, n=limit)
    return [Event._make(row) for row in rows]


def _any_of(values: Sequence[str]) -> str | None:
    return batch(values) if values else None
