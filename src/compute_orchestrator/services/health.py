"""Health: whether the store answers and can be written, the schema is current, and the reaper is
awake.
"""

import asyncio
import logging
from dataclasses import dataclass

from sqlalchemy.exc import SQLAlchemyError

from compute_orchestrator.db.engine import Store
from compute_orchestrator.db.statements.read import schema_revision
from compute_orchestrator.db.statements.writable import writable, write_nothing
from compute_orchestrator.domain.errors import StoreUnavailable
from compute_orchestrator.services.reaper import Reaper
from compute_orchestrator.services.transactions import Transactions

logger = logging.getLogger(__name__)

FRESH_INTERVALS = 5
FRESH_GRACE_SECONDS = 5.0
ANSWER_SECONDS = 2.0
"""For the store to answer: who probes does not wait for long."""
READ_ONLY = "read-only"
"""How a store that takes no writes syncs a commit."""


@dataclass(frozen=True, slots=True)
class Readiness:
    """`ready` is the verdict; the rest says why. `last_pass_seconds` is None before the first."""

    ready: bool
    store: str
    synchronous: str
    schema: str | None
    last_pass_seconds: float | None


class HealthService:
    def __init__(
        self,
        transactions: Transactions,
        store: Store,
        reaper: Reaper,
        *,
        schema: str | None,
        reaper_interval_seconds: float,
    ) -> None:
        self._transactions = transactions
        self._store = store
        self._reaper = reaper
        self._schema = schema
        self._freshest = FRESH_INTERVALS * reaper_interval_seconds + FRESH_GRACE_SECONDS

    async def readiness(self) -> Readiness:
        """Ask everything that must work."""
        last_pass = self._reaper.last_pass_seconds
        fresh = last_pass is not None and last_pass <= self._freshest
        asking = asyncio.create_task(self._ask_store())
        await asyncio.wait({asking}, timeout=ANSWER_SECONDS)
        answered = asking.done()
        schema, may_write = asking.result() if answered else (None, True)
        if not answered:  # and nobody waits for its end either
            asking.cancel()
        return Readiness(
            ready=fresh and schema == self._schema and may_write,
            store=self._store.dialect,
            synchronous=self._store.synchronous if may_write else READ_ONLY,
            schema=schema,
            last_pass_seconds=None if last_pass is None else round(last_pass, 3),
        )

    async def _ask_store(self) -> tuple[str | None, bool]:
        """The revision that it is at, None where it does not answer; whether it takes writes."""
        schema, may_write = None, True
        try:
            async with self._transactions.read() as session:
                schema = await schema_revision(session)
                may_write = await writable(session)
            if not may_write:  # as far as that connection knows; this one fails, or knows better
                async with self._transactions.write() as session:
                    await write_nothing(session)
                may_write = True
        except StoreUnavailable:
            pass
        except SQLAlchemyError as error:
            # A probe has no data of its own that could be at fault.
            logger.warning("the store has no schema to ask: %s", getattr(error, "orig", error))
        return schema, may_write
