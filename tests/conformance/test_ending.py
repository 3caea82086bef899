"""Whatever ends `orc conformance`, the processes that it started end with it."""

import asyncio
import shlex
import signal
import sys
from typing import Final

import psutil
import pytest

from tests.conformance.planted import Fault
from tests.conformance.workers import planted
from tests.promises.servers import ENOUGH_SECONDS, until

pytestmark = [pytest.mark.process, pytest.mark.slow]

ORC: Final = (sys.executable, "-m", "compute_orchestrator.cli.app")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_no_process_outlives_it(number: signal.Signals) -> None:
    command = shlex.join(planted(Fault.IGNORES_SIGTERM))
    orc = await asyncio.create_subprocess_exec(
        *ORC, "conformance", "--only", "W13", "--command", command, stderr=asyncio.subprocess.PIPE
    )

    async def started() -> list[psutil.Process]:
        """The server and both workers, once they run the planted program."""
        found = psutil.Process(orc.pid).children(recursive=True)
        return found if sum("planted" in " ".join(it.cmdline()) for it in found) > 1 else []

    children = await until(started)
    orc.send_signal(number)
    _, said = await asyncio.wait_for(orc.communicate(), ENOUGH_SECONDS)
    assert orc.returncode == 130
    assert said.decode() == "orc: stopped; every worker that was started has ended\n"
    assert [child for child in children if child.is_running()] == []
