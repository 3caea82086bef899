"""One check's world: its own queues on the shared server, a proxy, and the worker behind it."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from compute_orchestrator.client import OrchestratorClient
from compute_orchestrator.client.models import ClaimedJob, Job
from compute_orchestrator.conformance.duties import CLAIM, Duty
from compute_orchestrator.conformance.processes import WorkerProcess, running_worker
from compute_orchestrator.conformance.proxy import Proxy
from compute_orchestrator.conformance.traffic import Call, Exchange, Kind, Traffic

T = TypeVar("T")

# The vocabulary of the worker under test. A payload is always an object: a library may make its
# fields the arguments of a function.
ECHO: Final = "conformance.echo"  # {"value": ...}: the result is the value
SLEEP: Final = "conformance.sleep"  # {"seconds": ...}
FAIL: Final = "conformance.fail"  # {"message": ...}: the error's message

LEASE_SECONDS: Final = 3.0
LONGEST_LEASE_SECONDS: Final = 12.0
"""With longer ones the checks would take too long."""

START_SECONDS: Final = 20.0
TAKE_SECONDS: Final = 10.0
"""For a waiting job to be claimed, and for a small one to be done."""

MISUNDERSTOOD: Final = frozenset({404, 405, 413, 415, 422})


class Failed(Exception):
    """The worker does not do its duty; the words say what was seen, and what to mend."""


class NotTested(Exception):
    """It could not come to the test; the words say why."""


@dataclass(frozen=True)
class Stage:
    """What a check works with. `stop_seconds` is how long the worker may take to end."""

    client: OrchestratorClient
    proxy: Proxy
    traffic: Traffic
    worker: WorkerProcess
    worker_id: str
    queues: Sequence[str]
    stop_seconds: float

    async def echo(self, value: Any = None, *, queue: str | None = None) -> Job:
        """A job that is done at once."""
        return await self.create(ECHO, {"value": value}, queue=queue)

    async def create(
        self,
        name: str,
        payload: Any = None,
        *,
        queue: str | None = None,
        lease_seconds: float = LEASE_SECONDS,
        max_retries: int = 3,
    ) -> Job:
        return await self.client.create(
            name,
            payload,
            queue=queue or self.queues[0],
            lease_seconds=lease_seconds,
            max_retries=max_retries,
        )

    async def until(self, look: Callable[[], T], seconds: float) -> T | None:
        """What is found in the traffic; None when the time is over.

        It fails where the worker ends meanwhile.
        """
        looking = asyncio.create_task(self.traffic.until(look, seconds))
        ending = asyncio.create_task(self.worker.ended())
        try:
            await asyncio.wait({looking, ending}, return_when=asyncio.FIRST_COMPLETED)
            if looking.done():
                return looking.result()
        finally:
            looking.cancel()
            ending.cancel()
        raise Failed(f"the worker ended by itself, with the exit code {self.worker.code}")

    async def claimed(self, job: Job) -> Mapping[str, Any]:
        """The job as a claim's answer gave it to the worker."""
        call = await self.until(lambda: self.traffic.claim_of(job.id), TAKE_SECONDS)
        if call is None:
            raise NotTested(f"it did not claim a waiting job of its queue in {TAKE_SECONDS:.0f} s")
        given = next(given for given in call.jobs if given["id"] == job.id)
        held = ClaimedJob.model_validate(given).held_seconds
        if held > LONGEST_LEASE_SECONDS:
            raise NotTested(
                f"it asks for a lease of {held:.0f} s: let it leave `lease_seconds` out of its"
                " claims, so that the job's own counts"
            )
        return given

    async def done(self, job: Job, seconds: float = TAKE_SECONDS) -> Job:
        """The job once the worker has reported on it, whatever it said."""
        await self.claimed(job)
        if await self.until(lambda: self.told(self.reports(job)), seconds) is None:
            raise Failed(
                f"it claimed a {job.name} and had not reported on it {seconds:.0f} s later"
            )
        return await self.client.get(job.id)

    async def goes_on(self) -> None:
        """Whatever was done to it: it takes the next job, and does it."""
        job = await self.echo("next")
        if await self.until(lambda: self.told(self.reports(job)), TAKE_SECONDS) is None:
            raise Failed(f"the next job was not done in the {TAKE_SECONDS:.0f} s after that")

    def reports(self, job: Job) -> list[Call]:
        return self.traffic.calls(Kind.REPORT, job.id)

    def beats(self, job: Job) -> list[Call]:
        return self.traffic.calls(Kind.HEARTBEAT, job.id)

    @staticmethod
    def told(calls: Sequence[Call]) -> Call | None:
        """The first of them that the worker was given an answer to."""
        return next((call for call in calls if call.answered_at is not None), None)

    def misunderstood(self) -> Exchange | None:
        """The last request that the server could make nothing of."""
        refused = (e for e in reversed(self.traffic.exchanges) if e.status in MISUNDERSTOOD)
        return next(refused, None)


@asynccontextmanager
async def running_stage(
    duty: Duty,
    command: Sequence[str],
    client: OrchestratorClient,
    log: Path,
    *,
    stop_seconds: float,
) -> AsyncGenerator[Stage]:
    """The worker has made its first claim, and nothing waits for it."""
    name = log.stem
    queues = [f"conformance-{name}-{which}" for which in ("a", "b")]
    traffic = Traffic()
    async with Proxy(client.url, traffic) as proxy:
        settings = {
            "ORC_URL": proxy.url,
            "ORC_WORKER_ID": f"under-test-{name}",
            "ORC_QUEUES": ",".join(queues),
        }
        async with running_worker(command, settings, log) as worker:
            stage = Stage(
                client,
                proxy,
                traffic,
                worker,
                settings["ORC_WORKER_ID"],
                queues,
                stop_seconds,
            )
            try:
                await _until_it_claims(stage, duty)
                yield stage
            except (Failed, NotTested) as error:
                if (refused := stage.misunderstood()) is not None:
                    error.add_note(
                        f"The server refused {refused.method} {refused.path}: {refused.problem}"
                    )
                error.add_note("\n".join(worker.last_lines()))
                raise


async def _until_it_claims(stage: Stage, duty: Duty) -> None:
    """What never claims has failed one duty, and can't be asked about the others."""
    error = Failed if duty is CLAIM else NotTested
    try:
        claims = await stage.until(lambda: stage.traffic.calls(Kind.CLAIM), START_SECONDS)
    except Failed as ended:
        raise error(str(ended)) from None
    if not claims:
        raise error(f"no claim came to ORC_URL in {START_SECONDS:.0f} s")
