"""All checks side by side against one server, and what they came to."""

import asyncio
import shutil
import tempfile
from collections.abc import Collection, Coroutine, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from secrets import token_hex
from typing import Any, Final

from compute_orchestrator.client import OrchestratorClient
from compute_orchestrator.conformance.checks import CHECKS, Check
from compute_orchestrator.conformance.duties import DUTIES, Duty
from compute_orchestrator.conformance.processes import CannotRun, running_server
from compute_orchestrator.conformance.stage import Failed, NotTested, running_stage

MOST_AGAIN: Final = 3
"""So few failures may be the fault of a busy machine: each check is made again, with nothing beside
it, and that counts.
"""

AT_ONCE: Final = 8
STOP_SECONDS: Final = 20.0

CHECK_SECONDS: Final = 90.0
"""No check takes so long; what hangs is ended."""


class Outcome(StrEnum):
    PASSED = "passed"
    FAILED = "failed"
    NOT_TESTED = "not tested"


@dataclass(frozen=True, slots=True)
class Verdict:
    """`why` is empty where it passed; `lines` are the worker's last where it failed."""

    duty: Duty
    outcome: Outcome
    why: str = ""
    lines: Sequence[str] = ()


async def run_checks(
    command: Sequence[str],
    *,
    duties: Collection[Duty] = DUTIES,
    at_once: int = AT_ONCE,
    stop_seconds: float = STOP_SECONDS,
) -> list[Verdict]:
    """One verdict for each duty, in order, on a server of its own.

    Raises CannotRun where the server or the worker can't be started.
    """
    if shutil.which(command[0]) is None:
        raise CannotRun(f"can't start {command[0]!r}: there is no such program")
    with tempfile.TemporaryDirectory(prefix="orc-conformance-") as folder:
        async with running_server(Path(folder)) as url:
            return await run_checks_on(
                url,
                command,
                Path(folder),
                duties=duties,
                at_once=at_once,
                stop_seconds=stop_seconds,
            )


async def run_checks_on(
    url: str,
    command: Sequence[str],
    folder: Path,
    *,
    duties: Collection[Duty] = DUTIES,
    at_once: int = AT_ONCE,
    stop_seconds: float = STOP_SECONDS,
) -> list[Verdict]:
    """The same on a server that runs already. The folder is for what the workers write."""
    wanted = [check for check in CHECKS if check.duty in duties]
    async with OrchestratorClient(url) as client:
        rig = _Rig(command, client, folder, stop_seconds, asyncio.Semaphore(at_once))
        verdicts = await _side_by_side([rig.judge(check) for check in wanted])
        failed = [n for n, verdict in enumerate(verdicts) if verdict.outcome is Outcome.FAILED]
        if len(failed) <= MOST_AGAIN:
            for number in failed:
                verdicts[number] = await rig.judge(wanted[number])
    return [_of(duty, verdicts) for duty in DUTIES if duty in duties]


async def _side_by_side(work: Sequence[Coroutine[Any, Any, Verdict]]) -> list[Verdict]:
    """Where one is cancelled all are, and each has ended its worker when this returns."""
    running = [asyncio.create_task(one) for one in work]
    try:
        return await asyncio.gather(*running)
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


@dataclass(frozen=True, slots=True)
class _Rig:
    """What all checks share."""

    command: Sequence[str]
    client: OrchestratorClient
    folder: Path
    stop_seconds: float
    room: asyncio.Semaphore

    async def judge(self, check: Check) -> Verdict:
        async with self.room:
            return await self._judge(check, self.folder / f"{check.duty.name}-{token_hex(4)}.log")

    async def _judge(self, check: Check, log: Path) -> Verdict:
        duty = check.duty
        stage = running_stage(duty, self.command, self.client, log, stop_seconds=self.stop_seconds)
        try:
            async with asyncio.timeout(CHECK_SECONDS), stage as opened:
                await check.run(opened)
        except Failed as error:
            return Verdict(duty, Outcome.FAILED, *_words(error))
        except NotTested as error:
            return Verdict(duty, Outcome.NOT_TESTED, *_words(error))
        except TimeoutError:
            return Verdict(duty, Outcome.FAILED, f"the check did not end in {CHECK_SECONDS:.0f} s")
        return Verdict(duty, Outcome.PASSED)


def _words(error: Failed | NotTested) -> tuple[str, list[str]]:
    """Why, and the worker's last lines, which are the last note."""
    *hints, lines = getattr(error, "__notes__", [""])
    return ". ".join([str(error), *hints]), lines.splitlines()


def _of(duty: Duty, verdicts: Sequence[Verdict]) -> Verdict:
    """A duty is done where all of its checks say so."""
    own = [verdict for verdict in verdicts if verdict.duty is duty]
    order = (Outcome.FAILED, Outcome.NOT_TESTED, Outcome.PASSED)
    return min(own, key=lambda verdict: order.index(verdict.outcome))
