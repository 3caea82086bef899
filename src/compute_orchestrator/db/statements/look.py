"""Look: what those who wait would find now. It reads for all of them at once."""

from collections.abc import Collection

from compute_orchestrator.db.sessions import ReadSession, Statement
from compute_orchestrator.db.statements.rows import IDS_POSTGRESQL, batch
from compute_orchestrator.domain.values import JobId

# No farther along the index than there are sleepers.
CLAIMABLE = Statement(
    sqlite="""
        SELECT value, (SELECT count(*) FROM (SELECT 1 FROM jobs
                                              WHERE status = 'queued' AND delayed = 0
                                                AND queue = value LIMIT :n))
          FROM json_each(:queues)
         WHERE NOT EXISTS (SELECT 1 FROM queues WHERE name = value AND paused = 1)
    """,
    postgresql="""
        SELECT wanted.queue, (SELECT count(*) FROM (SELECT 1 FROM jobs
                                                     WHERE status = 'queued' AND delayed = 0
                                                       AND jobs.queue = wanted.queue
                                                     LIMIT :n) AS first_ones)
          FROM jsonb_array_elements_text(CAST(:queues AS jsonb)) AS wanted(queue)
         WHERE NOT EXISTS (SELECT 1 FROM queues WHERE name = wanted.queue AND paused = 1)
    """,
)

FINISHED = Statement(
    sqlite="""
        SELECT id FROM jobs
         WHERE id IN (SELECT value FROM json_each(:ids)) AND finished_at IS NOT NULL
    """,
    postgresql=f"SELECT id FROM jobs WHERE id IN ({IDS_POSTGRESQL}) AND finished_at IS NOT NULL",
)


async def claimable_in(session: ReadSession, queues: Collection[str], limit: int) -> dict[str, int]:
    """How many jobs could be claimed in each queue, counted up to `limit`."""
    if not queues:
        return {}
    rows = await session.fetch(CLAIMABLE, queues=batch(queues), n=limit)
    return {row[0]: row[1] for row in rows}


async def finished_among(session: ReadSession, jobs: Collection[JobId]) -> list[JobId]:
    """Which of these jobs have come to their end."""
    if not jobs:
        return []
    rows = await session.fetch(FINISHED, ids=batch(jobs))
    return [row[0] for row in rows]
