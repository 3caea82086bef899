"""Queues: the settings of a queue. A queue without any has no row."""

from collections.abc import Mapping

from compute_orchestrator.db.sessions import ReadSession, Statement, WriteSession
from compute_orchestrator.db.statements.rows import alone_with_postgresql, batch

# Some are paused and others resumed: without it two who do so crosswise wait for each other.
ALONE_WITH_QUEUES = Statement(
    sqlite="SELECT 1", postgresql=alone_with_postgresql("'queue ' || name", "name text")
)

PAUSE = Statement(
    sqlite="""
        INSERT INTO queues (name, paused)
        SELECT value, 1 FROM json_each(:names) WHERE true
        ON CONFLICT (name) DO UPDATE SET paused = 1
    """,
    postgresql="""
        INSERT INTO queues (name, paused)
        SELECT name, 1 FROM jsonb_array_elements_text(CAST(:names AS jsonb)) AS its(name)
         ORDER BY name
        ON CONFLICT (name) DO UPDATE SET paused = 1
    """,
)

# The pause is all that can be set.
RESUME = Statement(
    sqlite="DELETE FROM queues WHERE name IN (SELECT value FROM json_each(:names))",
    postgresql="""
        DELETE FROM queues
         WHERE name IN (SELECT jsonb_array_elements_text(CAST(:names AS jsonb)))
    """,
)

PAUSED = Statement(
    sqlite="SELECT name FROM queues WHERE paused = 1",
    postgresql="SELECT name FROM queues WHERE paused = 1",
)


async def set_paused(session: WriteSession, queues: Mapping[str, bool]) -> None:
    """Pause or resume queues."""
    if not session.alone:
        await session.fetch(ALONE_WITH_QUEUES, its=batch({"name": name} for name in queues))
    await session.run(PAUSE, names=batch(name for name, paused in queues.items() if paused))
    await session.run(RESUME, names=batch(name for name, paused in queues.items() if not paused))


async def paused_queues(session: ReadSession) -> set[str]:
    """The queues from which no claim takes."""
    return {row[0] for row in await session.fetch(PAUSED)}
