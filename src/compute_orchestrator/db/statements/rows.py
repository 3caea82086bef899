"""How a job's row is asked for and read: the columns in the order of `domain.job.Job`."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from compute_orchestrator.domain.job import Job
from compute_orchestrator.domain.lifecycle import Status

JOB_COLUMNS = ", ".join(Job._fields)
QUALIFIED_JOB_COLUMNS = ", ".join(f"jobs.{field}" for field in Job._fields)

# For who decides about a job and shows it to nobody. A database can't end the transaction of a
# client that stopped in the middle of an answer, so an answer that nobody reads must be short.
_ONLY_SHOWN: Final[Mapping[str, str]] = {
    "payload": "NULL",
    "progress": "NULL",
    "checkpoint": "NULL",
    "result": "NULL",
    "error": "NULL",
    "tags": "'[]'",
}
LIGHT_JOB_COLUMNS = ", ".join(_ONLY_SHOWN.get(field, f"jobs.{field}") for field in Job._fields)

# PostgreSQL's own time, read once a statement; only tests pass one.
CLOCK_POSTGRESQL = """
    clock AS MATERIALIZED (SELECT coalesce(CAST(:now AS timestamptz), clock_timestamp()) AS now)
"""

_STATUS = {status.value: status for status in Status}

# The expiry that a sign of life brings: never earlier than it was, never past the attempt's time.
EXTENDED_LEASE_SQLITE = """
    max(lease_expires_at,
        min(:now + CAST(round(held_seconds * 1000000) AS INTEGER),
            locked_at + CAST(round(coalesce(timeout_seconds, 1e9) * 1000000) AS INTEGER)))
"""


IDS_POSTGRESQL = "SELECT CAST(jsonb_array_elements(CAST(:ids AS jsonb)) AS bigint)"

# A lock on the job of one of `its`, taken in their order: batches that lock by id never deadlock. A
# subquery that locks is run as it stands, one look into an index for each, whatever the planner
# believes of a table that it has no statistics of.
HELD_POSTGRESQL = """
    SELECT id FROM jobs
     WHERE jobs.id = its.job_id AND jobs.lease_token = its.lease_token AND jobs.status = 'running'
       FOR UPDATE
"""


def alone_with_postgresql(name: str, columns: str) -> str:
    """Wait for every other transaction that asked for one of `its` by this name, in one order.

    A statement of its own: the next one sees what became of the others.
    """
    return f"""
        SELECT pg_advisory_xact_lock(one.number)
          FROM (SELECT DISTINCT hashtextextended({name}, 0) AS number
                  FROM jsonb_to_recordset(CAST(:its AS jsonb)) AS its({columns})
                 ORDER BY number) AS one
    """


EXTENDED_LEASE_POSTGRESQL = """
    greatest(jobs.lease_expires_at,
             least(clock.now + jobs.held_seconds * interval '1 second',
                   jobs.locked_at + coalesce(jobs.timeout_seconds, 1e9) * interval '1 second'))
"""


def moment_postgresql(micros: str) -> str:
    """A time out of microseconds since 1970. In two parts, since a double holds 53 bits."""
    return (
        f"(timestamptz 'epoch' + {micros} / 1000000 * interval '1 second'"
        f" + {micros} % 1000000 * interval '1 microsecond')"
    )


def job_from(row: Sequence[Any]) -> Job:
    """A row of JOB_COLUMNS as a Job."""
    values = list(row)
    values[5] = _STATUS[values[5]]
    values[6] = bool(values[6])
    values[24] = bool(values[24])
    return Job._make(values)


def batch(items: Iterable[Any]) -> str:
    """A list as the one JSON parameter of a statement."""
    return json.dumps(list(items), ensure_ascii=False, separators=(",", ":"))
