"""Writable: whether the store takes writes. A standby, or a database that is set so, only reads."""

from compute_orchestrator.db.sessions import ReadSession, Statement, WriteSession

# An SQLite file that can't be written does not open.
WRITABLE = Statement(
    sqlite="SELECT true",
    postgresql="""
        SELECT NOT pg_is_in_recovery()
               AND NOT CAST(current_setting('default_transaction_read_only') AS boolean)
    """,
)

# It takes no row and no lock of one, and is refused nevertheless where nothing may be written.
WRITE_NOTHING = Statement(
    sqlite="SELECT true",
    postgresql="SELECT id FROM watch WHERE false FOR UPDATE",
)


async def writable(session: ReadSession) -> bool:
    """Whether the store took writes when this connection was made."""
    rows = await session.fetch(WRITABLE)
    return bool(rows[0][0])


async def write_nothing(session: WriteSession) -> None:
    """Fails where the store takes no writes."""
    await session.fetch(WRITE_NOTHING)
