"""Copy a whole store into an empty one, of either kind.

It is read in one snapshot and written in one transaction, and read back before the commit: a copy
that differs, or was cut off, leaves nothing, and can be made again.
"""

import asyncio
import sqlite3
from hashlib import blake2b
from typing import Final, Protocol

import asyncpg
from sqlalchemy import Table, func, select
from sqlalchemy.exc import SQLAlchemyError

from compute_orchestrator.db.engine import build_store, parse_url
from compute_orchestrator.db.migrate import current_revision, head_revision, owning, upgrade
from compute_orchestrator.db.postgresql import POOLER
from compute_orchestrator.db.sides import TABLES, Batches, CannotCopy, Side, connected

STORE_ERRORS: Final = (
    SQLAlchemyError,
    sqlite3.Error,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    OSError,
)


class SameStore(CannotCopy):
    """There is only one store."""


class Listener(Protocol):
    """Is told how far it is. A step is a row that was written, or read back."""

    def start(self, steps: int) -> None: ...

    def step(self, table: str, steps: int) -> None: ...

    def checked(self) -> None:
        """All is there and compared; the commit is next."""
        ...


class Tally:
    """How many rows went by, and a sum over all their values, whatever their order."""

    def __init__(self, table: Table, listener: Listener) -> None:
        self.rows = 0
        self.sum = 0
        self._table = table.name
        self._listener = listener

    async def over(self, batches: Batches) -> Batches:
        async for batch in batches:
            for row in batch:
                self.sum += int.from_bytes(blake2b(repr(row).encode(), digest_size=8).digest())
            self.rows += len(batch)
            self._listener.step(self._table, len(batch))
            yield batch


async def copy_store(
    source_url: str, target_url: str, *, live: bool, listener: Listener
) -> dict[str, int]:
    """How many rows of each table there are, once all of them are in the target.

    With `live` servers may go on with the source. Raises CannotCopy, StartupError, STORE_ERRORS.
    """
    await _bring_to_newest_schema(source_url, target_url, live=live)
    async with connected(source_url, "source") as source, connected(target_url, "target") as target:
        if await source.identity() == await target.identity():
            raise SameStore("SOURCE and TARGET are the same store.")
        async with target.transaction(), source.snapshot(live=live):
            await _require_empty(target)
            counts = {table: await source.scalar(count(table)) for table in TABLES}
            listener.start(2 * sum(counts.values()))
            for table, rows in counts.items():
                await _copy_table(table, rows, source, target, listener)
                if table.autoincrement_column is not None:
                    await _copy_counter(table, source, target)
            listener.checked()
    return {table.name: rows for table, rows in counts.items()}


async def _bring_to_newest_schema(source_url: str, target_url: str, *, live: bool) -> None:
    """Only of a target that is empty, and only once the source may be copied."""
    for url in (source_url, target_url):
        if POOLER in parse_url(url).query:
            raise CannotCopy(
                "A copy can't go through PgBouncer, which hides who is connected: name the"
                " database itself."
            )
        store = build_store(url)
        try:
            await store.open()
        finally:
            await store.close()
    source = await asyncio.to_thread(current_revision, source_url)
    target = await asyncio.to_thread(current_revision, target_url)
    if source is None:
        raise CannotCopy("The source is empty: there is no store in it.")
    head = head_revision()
    for role, revision in (("source", source), ("target", target)):
        if revision not in (None, head):
            raise CannotCopy(
                f"The schema of the {role} is {revision}, and this version needs {head}."
                " Run `orc db upgrade` on it first."
            )
    if target is None:
        async with connected(source_url, "source") as side, side.snapshot(live=live):
            pass  # a server that is there is refused before anything is written
        with owning(target_url):
            await asyncio.to_thread(upgrade, target_url)


async def _require_empty(target: Side) -> None:
    for table in TABLES:
        if await target.scalar(count(table)):
            raise CannotCopy(
                f"The target is not empty: it has rows in {table.name}."
                " Name a new file or a new database."
            )


async def _copy_table(
    table: Table, rows: int, source: Side, target: Side, listener: Listener
) -> None:
    sent, found = Tally(table, listener), Tally(table, listener)
    await target.write(table, sent.over(source.read(table)))
    async for _ in found.over(target.read(table)):
        pass
    if not (rows == sent.rows == found.rows and sent.sum == found.sum):
        raise CannotCopy(
            f"The check failed: {table.name} came out different in the target, with {found.rows:,}"
            f" rows for {rows:,}. Nothing was kept."
        )


async def _copy_counter(table: Table, source: Side, target: Side) -> None:
    """No id is given twice, not even that of a job that was deleted."""
    largest = await source.scalar(str(select(func.max(table.autoincrement_column))))
    await target.set_last_id(table, max(await source.last_id(table), largest or 0))


def count(table: Table) -> str:
    return str(select(func.count()).select_from(table))
