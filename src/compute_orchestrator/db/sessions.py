"""Sessions as long as a transaction. Reading and writing are different types.

A statement that writes asks for a `WriteSession`: handing it a `ReadSession` is a type error.
"""

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncSession

from compute_orchestrator.domain.lifecycle import Step
from compute_orchestrator.domain.values import Micros

Row = Sequence[Any]


class Statement:
    """One operation's SQL, a text for each dialect, side by side.

    Where a dialect needs several statements for what the other does in one, they are a tuple.
    """

    def __init__(self, *, sqlite: str | tuple[str, ...], postgresql: str) -> None:
        self._texts: Mapping[str, Sequence[TextClause]] = {
            "sqlite": tuple(map(text, (sqlite,) if isinstance(sqlite, str) else sqlite)),
            "postgresql": (text(postgresql),),
        }

    def on(self, dialect: str) -> Sequence[TextClause]:
        """The texts for this dialect, to be run in this order."""
        return self._texts[dialect]


class ReadSession:
    """A snapshot to read from."""

    def __init__(self, session: AsyncSession, *, dialect: str, now: Micros | None) -> None:
        self._session = session
        self._dialect = dialect
        self.now = now
        """The store's time for this transaction; None where the statements read it themselves."""

    async def fetch(self, statement: Statement, **parameters: Any) -> Sequence[Row]:
        """Run a statement and bring all of its rows."""
        (only,) = statement.on(self._dialect)
        result = await self._session.execute(only, {"now": self.now, **parameters})
        return result.all()


class WriteSession(ReadSession):
    """A transaction that writes. Its steps go into the trail just before the commit.

    `alone` says that no other transaction can hold the rows that this one asks for.
    """

    def __init__(
        self, session: AsyncSession, *, dialect: str, now: Micros | None, alone: bool
    ) -> None:
        super().__init__(session, dialect=dialect, now=now)
        self.alone = alone
        self.steps: list[Step] = []
        self._written = 0

    def record(self, steps: Sequence[Step]) -> None:
        """Note changes of status; they are written in this transaction."""
        self.steps.extend(steps)

    def take_unwritten(self) -> Sequence[Step]:
        """The steps that are not in the trail yet; the caller writes them now."""
        steps = self.steps[self._written :]
        self._written = len(self.steps)
        return steps

    async def run(self, statement: Statement, **parameters: Any) -> None:
        """Run a statement that returns nothing."""
        for each in statement.on(self._dialect):
            await self._session.execute(each, {"now": self.now, **parameters})

    @asynccontextmanager
    async def savepoint(self) -> AsyncGenerator[None]:
        """A part of the transaction that can fail alone; its steps are forgotten with it."""
        recorded, written = len(self.steps), self._written
        try:
            async with self._session.begin_nested():
                yield
        except BaseException:
            del self.steps[recorded:]
            self._written = written
            raise
