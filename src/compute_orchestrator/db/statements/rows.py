"""How a job's row is asked for and read: the columns in the order of `domain.job.Job`."""

import json
from collections.abc import Iterable, Sequence
from typing import Any

from compute_orchestrator.domain.job import Job
from compute_orchestrator.domain.lifecycle import Status

JOB_COLUMNS = ", ".join(Job._fields)
QUALIFIED_JOB_COLUMNS = ", ".join(f"jobs.{field}" for field in Job._fields)

_STATUS = {status.value: status for status in Status}

# The expiry that a sign of life brings: never earlier than it was, never past the attempt's time.
EXTENDED_LEASE_SQLITE = """
    max(lease_expires_at,
        min(:now + CAST(round(held_seconds * 1000000) AS INTEGER),
            locked_at + CAST(round(coalesce(timeout_seconds, 1e9) * 1000000) AS INTEGER)))
"""


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
