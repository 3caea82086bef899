"""Health: whether the store answers, the schema is current, and the reaper is awake."""

import logging
from dataclasses import dataclass

from sqlalchemy.exc import SQLAlchemyError

from compute_orchestrator.db.engine import Store
from compute_orchestrator.db.statements.read import schema_revision
from compute_orchestrator.domain.errors import StoreUnavailable
from compute_orchestrator.services.reaper import Reaper
from compute_orchestrator.services.transactions import Transactions

logger = logging.getLogger(__name__)

FRESH_INTERVALS = 5
FRESH_GRACE_SECONDS = 5.0


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
        schema = await self._store_schema()
        return Readiness(
            ready=fresh and schema == self._schema,
            store=self._store.dialect,
            synchronous=self._store.synchronous,
            schema=schema,
            last_pass_seconds=None if last_pass is None else round(last_pass, 3),
        )

    async def _store_schema(self) -> str | None:
        """The revision that the store is at; None where it does not answer."""
        try:
            async with self._transactions.read() as session:
                return await schema_revision(session)
        except StoreUnavailable:
            return None
        except SQLAlchemyError as error:
            # A probe has no data of its own that could be at fault.
            logger.warning("the store has no schema to ask: %s", getattr(error, "orig", error))
            return None
