"""How Alembic runs the history: on the connection it is given, else on ORC_DATABASE_URL."""

import asyncio
import os

from alembic import context
from sqlalchemy import Connection

from compute_orchestrator.db.migrate import migration_engine
from compute_orchestrator.db.models import Base


def migrate(connection: Connection) -> None:
    context.configure(connection=connection, target_metadata=Base.metadata)
    with context.begin_transaction():
        context.run_migrations()


async def migrate_by_url() -> None:
    engine = migration_engine(os.environ.get("ORC_DATABASE_URL", "sqlite+aiosqlite:///orc.db"))
    async with engine.begin() as connection:
        await connection.run_sync(migrate)
    await engine.dispose()


given: Connection | None = context.config.attributes.get("connection")
if given is not None:
    migrate(given)
else:
    asyncio.run(migrate_by_url())
