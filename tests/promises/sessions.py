"""What PostgreSQL knows of a server's connections: how many, what they do, and that all work."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Final

import asyncpg
import httpx

from tests.databases import Database
from tests.promises.calls import ok
from tests.promises.servers import until

OURS: Final = """
    FROM pg_stat_activity
   WHERE datname = current_database() AND application_name = 'compute-orchestrator'
"""
END_ALL: Final = f"SELECT pg_terminate_backend(pid) {OURS}"
END_ONE: Final = f"{END_ALL} AND pid = (SELECT pid {OURS} ORDER BY random() LIMIT 1)"
COUNT: Final = f"SELECT count(*) {OURS}"

# Each commit takes three milliseconds more, so that much of what is cut is cut in it.
SLOW_COMMITS: Final = (
    """
    CREATE FUNCTION dawdle() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN PERFORM pg_sleep(0.003); RETURN NULL; END $$
    """,
    """
    CREATE CONSTRAINT TRIGGER dawdle AFTER INSERT ON stat_deltas
        DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION dawdle()
    """,
)


@asynccontextmanager
async def connected(url: str) -> AsyncGenerator[asyncpg.Connection]:
    """A connection of the test's own."""
    connection = await asyncpg.connect(url)
    try:
        yield connection
    finally:
        await connection.close()


def make_commits_slow(database: Database) -> None:
    for statement in SLOW_COMMITS:
        database.rows(statement)


async def expect_whole_pool(http: httpx.AsyncClient, database_url: str, size: int) -> None:
    """Each of its connections can be used while the others are, and there are no more: one besides
    carries messages. At rest none of them is inside a transaction.
    """
    async with connected(database_url) as looking, connected(database_url) as holder:

        async def all_wait() -> bool:
            return await looking.fetchval(
                f"SELECT count(*) = {size} {OURS} AND wait_event_type = 'Lock'"
            )

        async def at_rest() -> bool:
            return await looking.fetchval(
                f"SELECT count(*) <= {size + 1} AND bool_and(state = 'idle') {OURS}"
            )

        async with holder.transaction():
            await holder.execute("LOCK TABLE jobs")
            calls = [asyncio.create_task(http.get("/jobs?limit=1")) for _ in range(2 * size)]
            await until(all_wait)
        for call in calls:
            ok(await call)
        await until(at_rest)
