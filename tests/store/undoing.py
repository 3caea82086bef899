"""A transaction that is never committed: each example of a property starts from the same store."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress

from compute_orchestrator.db.engine import Store
from compute_orchestrator.db.sessions import WriteSession
from compute_orchestrator.services.transactions import Transactions
from compute_orchestrator.services.wakeups import Wakeups


class Undo(Exception):
    """Ends the transaction."""


@asynccontextmanager
async def undone(store: Store) -> AsyncGenerator[WriteSession]:
    """What is written in here is rolled back at the end."""
    with suppress(Undo):
        async with Transactions(store, Wakeups()).write() as session:
            yield session
            raise Undo
