"""Queues: the settings of a queue. A queue without any has no row."""

from collections.abc import Mapping

from compute_orchestrator.db.sessions import ReadSession, Statement, WriteSession
from compute_orchestrator.db.statements.rows import batch

SET_PAUSED = Statement(
    sqlite="""
        INSERT INTO queues (name, paused)
        SELECT value ->> 'name', value ->> 'paused' FROM json_each(:queues) WHERE true
        ON CONFLICT (name) DO UPDATE SET paused = excluded.paused
    """,
)

PAUSED = Statement(sqlite="SELECT name, paused FROM queues")


async def set_paused(session: WriteSession, queues: Mapping[str, bool]) -> None:
    """Pause or resume queues."""
    await session.run(
        SET_PAUSED,
        queues=batch({"name": name, "paused": int(paused)} for name, paused in queues.items()),
    )


async def paused_queues(session: ReadSession) -> dict[str, bool]:
    """The queues on which something was ever set."""
    return {row[0]: bool(row[1]) for row in await session.fetch(PAUSED)}
