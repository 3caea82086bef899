"""Transactions: open, write the trail, commit or roll back. The only file that commits.

What the driver throws becomes `StoreUnavailable`, but for faults of the data, which the coalescer
blames on one call.
"""

import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from sqlalchemy.exc import SQLAlchemyError

from compute_orchestrator.db.engine import Store
from compute_orchestrator.db.sessions import ReadSession, WriteSession
from compute_orchestrator.db.statements.trail import write_trail
from compute_orchestrator.domain.errors import StoreUnavailable
from compute_orchestrator.services.outage import Outage
from compute_orchestrator.services.wakeups import Wakeups

logger = logging.getLogger(__name__)

# A database that can't be reached, or does not answer in time, is told by the system's own errors.
TROUBLE = (SQLAlchemyError, OSError)

NO_ANSWER = "no answer came in time"
"""What an error without words tells."""

AWAY = "The store is not available now. Whether a write took effect is not known: ask again."


class Transactions:
    """Sessions on the store, each as long as its transaction."""

    def __init__(self, store: Store, wakeups: Wakeups) -> None:
        self._store = store
        self._wakeups = wakeups
        self._reading, self._writing = (
            Outage(
                logger,
                begins=f"the store is not available to {what}",
                ends=f"the store is available to {what} again",
            )
            for what in ("read", "write")
        )

    def is_fault_of_data(self, error: Exception) -> bool:
        """Whether a statement failed over its data, and the transaction can go on without it."""
        return self._store.is_fault_of_data(error)

    @asynccontextmanager
    async def read(self) -> AsyncGenerator[ReadSession]:
        """A snapshot. Raises StoreUnavailable."""
        try:
            async with self._store.reading() as (_, session):
                yield session
        except TROUBLE as error:
            if self.is_fault_of_data(error):
                raise
            raise _away(self._reading, error) from error
        self._reading.is_over()

    @asynccontextmanager
    async def write(self) -> AsyncGenerator[WriteSession]:
        """A transaction, committed at the end and rolled back on any error.

        Raises StoreUnavailable when the store is in trouble or the commit fails, and the driver's
        own error when a statement failed over its data.
        """
        try:
            async with self._store.writing() as (transaction, session):
                try:
                    yield session
                    await write_trail(session)
                except BaseException:
                    await transaction.rollback()
                    raise
                try:
                    await transaction.commit()
                except TROUBLE as error:
                    await transaction.rollback()
                    raise _away(self._writing, error) from error
        except TROUBLE as error:
            if self.is_fault_of_data(error):
                raise
            raise _away(self._writing, error) from error
        self._writing.is_over()
        self._wakeups.announce(session.steps)


def _away(outage: Outage, error: Exception) -> StoreUnavailable:
    """Log the cause, which the caller is not told."""
    outage.came(str(getattr(error, "orig", None) or error) or NO_ANSWER)
    return StoreUnavailable(AWAY)
