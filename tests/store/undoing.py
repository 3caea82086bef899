"""A transaction that is never committed: each example of a property starts from the same store."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress

from hypothesis import HealthCheck, settings

from compute_orchestrator.db.engine import Store
from compute_orchestrator.db.sessions import WriteSession
from compute_orchestrator.services.transactions import Transactions
from compute_orchestrator.services.wakeups import Wakeups

one_store = settings(
    deadline=None,  # the machine may be busy with something else
    suppress_health_check=[HealthCheck.function_scoped_fixture],  # the store is left as it was
)


class Undo(Exception):
    """Ends the transaction."""


@asynccontextmanager
async def undone(store: Store) -> AsyncGenerator[WriteSession]:
    """What is written in here is rolled back at the end."""
    with suppress(Undo):
        async with Transactions(store, Wakeups()).write() as session:
            yield session
            raise Undo
