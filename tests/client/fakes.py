"""A server that answers when and what the test says, and jobs that it might have handed out."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from compute_orchestrator.client import OrchestratorClient
from compute_orchestrator.client.models import ClaimedJob, Job, Status, SyncAnswer
from compute_orchestrator.client.reports import Report
from compute_orchestrator.client.syncing import BeatItem, ClaimPart

LOST = {"status": 409, "code": "lease-lost", "title": "the lease is lost"}
INVALID = {"status": 422, "code": "validation-error", "title": "not valid"}


def claimed(number: int = 7, *, lease_seconds: int = 1, name: str = "task") -> ClaimedJob:
    return ClaimedJob.model_validate(
        {
            "id": number,
            "queue": "q",
            "name": name,
            "status": "running",
            "attempt": 1,
            "max_retries": 3,
            "lease_token": f"token-{number}",
            "locked_by": "w",
            "locked_at": "2026-11-23T21:45:00.000000Z",
            "lease_expires_at": f"2026-11-23T21:45:{lease_seconds:02}.000000Z",
        }
    )


@dataclass
class Call:
    """One call, which waits for the test's answer."""

    reports: Sequence[tuple[ClaimedJob, Report]] = ()
    heartbeats: Sequence[BeatItem] = ()
    claim: ClaimPart | None = None
    about: Any = None
    is_single: bool = False
    said: "asyncio.Future[SyncAnswer]" = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )

    @property
    def ids(self) -> list[int]:
        """Of the jobs that it tells of."""
        return [job.id for job, _ in self.reports] + [item.job.id for item in self.heartbeats]

    def answer(
        self,
        jobs: Sequence[ClaimedJob] = (),
        problems: dict[int, dict[str, Any]] | None = None,
        **more: Any,
    ) -> None:
        """Every item is taken, but those for whose job there is a problem."""
        refused = problems or {}

        def item(job_id: int, said: dict[str, Any]) -> dict[str, Any]:
            problem = {"problem": refused[job_id]} if job_id in refused else said
            return {"id": job_id, **problem}

        reports = [item(job.id, {"status": report.status}) for job, report in self.reports]
        expiry = "2026-11-23T21:46:00.000000Z"
        beats = [item(it.job.id, {"lease_expires_at": expiry, **more}) for it in self.heartbeats]
        answer = {"reports": reports, "heartbeats": beats}
        self.said.set_result(
            SyncAnswer.model_validate(answer).model_copy(update={"jobs": list(jobs)})
        )

    def fail(self, error: BaseException) -> None:
        self.said.set_exception(error)


class FakeClient:
    """What a worker uses of a client."""

    url = "http://127.0.0.1:8000"

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self._fresh: asyncio.Queue[Call] = asyncio.Queue()

    @property
    def as_client(self) -> OrchestratorClient:
        return cast("OrchestratorClient", self)

    async def next(self) -> Call:
        """The next call that was made."""
        return await asyncio.wait_for(self._fresh.get(), 10)

    @property
    def is_quiet(self) -> bool:
        """Whether the test has seen every call."""
        return self._fresh.empty()

    async def sync(self, worker_id: str, **parts: Any) -> SyncAnswer:
        assert worker_id == "w"
        return await self._make(Call(**parts))

    async def report(self, job: ClaimedJob, report: Report) -> Job:
        said = await self._make(Call(reports=[(job, report)], is_single=True))
        status = said.reports[0].status or Status.RUNNING
        if (error := said.reports[0].error()) is not None:
            raise error
        return Job.model_validate({**job.model_dump(), "status": status})

    async def heartbeat(
        self, job: ClaimedJob, *, progress: Any = None, checkpoint: Any = None
    ) -> Any:
        item = BeatItem(job, progress, checkpoint)
        said = await self._make(Call(heartbeats=[item], is_single=True))
        if (error := said.heartbeats[0].error()) is not None:
            raise error
        return said.heartbeats[0]

    async def _make(self, call: Call) -> SyncAnswer:
        self.calls.append(call)
        self._fresh.put_nowait(call)
        return await call.said


async def a_while(turns: int = 20) -> None:
    """Let the loop turn so often: what can happen without time has happened then."""
    loop = asyncio.get_running_loop()
    for _ in range(turns):
        turned = asyncio.Event()
        loop.call_soon(turned.set)
        await turned.wait()
