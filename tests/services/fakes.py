"""Operations that write their items down, and can be held in the middle of a turn."""

import asyncio
import sqlite3
from collections.abc import Hashable, Iterable, Sequence

from sqlalchemy.exc import OperationalError

from compute_orchestrator.db.sessions import Statement, WriteSession
from compute_orchestrator.db.statements.create import create_jobs
from compute_orchestrator.db.statements.rows import batch
from compute_orchestrator.domain.errors import JobNotFound, OrchestratorError
from compute_orchestrator.domain.values import JobId
from compute_orchestrator.services.coalescer import Coalescer, Operation
from tests.builders import new_job
from tests.store.house import House, rows

# A name that is there already is refused: the poison.
NOTE = Statement(
    sqlite="INSERT INTO queues (name, paused) SELECT value, 0 FROM json_each(:names)",
    postgresql="""
        INSERT INTO queues (name, paused)
        SELECT name, 0 FROM jsonb_array_elements_text(CAST(:names AS jsonb)) AS its(name)
    """,
)

REFUSED = "refused"
Turn = list[tuple[str, list[str]]]


class Notes:
    """An operation on names: each makes a job and is noted in the store, or is refused.

    `log` tells which batches ran, in their order; several operations may share one.
    """

    def __init__(
        self,
        name: str = "note",
        *,
        rank: int = 50,
        vital: bool = False,
        log: Turn | None = None,
        sizes: dict[str, int] | None = None,
        subjects: dict[str, Hashable] | None = None,
    ) -> None:
        self.log: Turn = [] if log is None else log
        self.began = asyncio.Event()
        self.go = asyncio.Event()
        self.go.set()
        sizes, subjects = sizes or {}, subjects or {}
        self.operation: Operation[str, str] = Operation(
            name,
            rank,
            self._run,
            vital=vital,
            size=lambda item: sizes.get(item, 0),
            subject=lambda item: subjects.get(item),
        )

    @property
    def batches(self) -> list[list[str]]:
        return [items for _, items in self.log]

    async def _run(
        self, session: WriteSession, items: Sequence[str]
    ) -> Sequence[str | OrchestratorError]:
        self.log.append((self.operation.name, list(items)))
        self.began.set()
        await self.go.wait()
        taken = [item for item in items if not item.startswith(REFUSED)]
        await create_jobs(session, [new_job(item) for item in taken])
        await session.run(NOTE, names=batch(taken))
        return [f"noted {item}" if item in taken else JobNotFound(JobId(0)) for item in items]


def submit(coalescer: Coalescer, notes: Notes, items: Iterable[str]) -> list[asyncio.Task[str]]:
    """A caller for each item; they call in this order as soon as the test waits for something."""
    return [asyncio.create_task(coalescer.submit(notes.operation, item)) for item in items]


async def hold(coalescer: Coalescer, notes: Notes, item: str = "first") -> asyncio.Task[str]:
    """A caller whose turn stands in the middle until `notes.go` is set again."""
    notes.go.clear()
    notes.began.clear()
    (caller,) = submit(coalescer, notes, [item])
    await notes.began.wait()
    return caller


async def called() -> None:
    """Let every caller that was started come to wait for its answer."""
    loop = asyncio.get_running_loop()
    passed = loop.create_future()
    loop.call_soon(passed.set_result, None)
    await passed


async def noted(house: House) -> set[str]:
    """What is in the store, as another connection sees it."""
    names = {row["name"] for row in await rows(house.store, "SELECT name FROM queues")}
    jobs = await rows(
        house.store, "SELECT name FROM jobs JOIN job_events ON job_events.job_id = jobs.id"
    )
    assert {row["name"] for row in jobs} == names, "a job, its first step and its note are one"
    assert len(jobs) == len(names)
    return names


def trouble(code: int) -> OperationalError:
    """What the driver throws when the store fails in this way."""
    error = sqlite3.OperationalError("from a test")
    error.sqlite_errorcode = code
    return OperationalError("COMMIT", {}, error)
