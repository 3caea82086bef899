"""Three servers on one PostgreSQL, thirty workers and two producers, each a process. For a minute a
random server or worker is killed twice a second, and PostgreSQL is restarted once and crashes once.
What everybody asked and was answered is then held against what stands in the database.

What is drawn by lot hangs on the seed that a failure names, but how the processes meet does not.
"""

import asyncio
import logging
import random
import re
import signal
import socket
import sys
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from tests.clusters import Cluster, running_cluster
from tests.databases import Database
from tests.promises.evidence import Evidence, Outage, gathered
from tests.promises.history import wall_clock
from tests.promises.history_checker import faults
from tests.promises.servers import LOCAL, ServerProcess, real_seconds, until

if TYPE_CHECKING:
    from asyncio.subprocess import Process

pytestmark = [pytest.mark.process, pytest.mark.slow, pytest.mark.timeout(400)]

logger = logging.getLogger(__name__)

SERVERS, WORKERS, PRODUCERS = 3, 30, 2
SECONDS: Final = 60
BETWEEN_KILLS_SECONDS: Final = 0.5
SERVERS_SHARE: Final = 1 / 4
"""Of all that are killed. A server takes seconds to come back, a worker a tenth of one."""
AWAY_SECONDS: Final = 1
"""How long PostgreSQL is down: more than two passes of the reaper, so that each sees the gap."""
DRAIN_SECONDS: Final = 120
A_RUN_SECONDS: Final = 600

ROOT: Final = Path(__file__).parents[2]
WORKER: Final = (sys.executable, "-S", "-m", "tests.promises.chaos_worker")
UNFINISHED: Final = "SELECT id FROM jobs WHERE finished_at IS NULL LIMIT 1"
STORIES: Final = 3


class Caller:
    """A worker or a producer. Under a new name at each start, since its file is its own."""

    def __init__(self, role: str, name: str, folder: Path, seed: int, ports: Sequence[int]) -> None:
        self._words = (folder, seed, *ports)
        self._role, self._name = role, name
        self._log = folder / "callers.log"
        self._starts = 0
        self._process: Process | None = None

    async def spawn(self) -> None:
        self._starts += 1
        words = (self._role, f"{self._name}.{self._starts}", *self._words)
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *WORKER, *map(str, words), cwd=ROOT, stdout=log, stderr=log
            )

    async def wait(self, seconds: float) -> int:
        assert self._process is not None
        async with asyncio.timeout(seconds):
            code = await self._process.wait()
        # Those that are told to end while they start have no handler yet.
        assert code in (0, -signal.SIGKILL, -signal.SIGTERM), self._log.read_text()
        return code

    def send(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)


class Kept:
    """A process that is started again whenever it ends, until it is let go."""

    def __init__(self, process: ServerProcess | Caller) -> None:
        self._process = process
        self._alive = False
        self._let_go = False
        self._gone = asyncio.Event()
        self.kills = 0

    async def run(self) -> None:
        while not self._let_go:
            await self._process.spawn()
            self._alive = True
            try:
                await self._process.wait(A_RUN_SECONDS)
            except asyncio.CancelledError:  # the test failed: nothing may stay behind
                self._process.send(signal.SIGKILL)
                await self._process.wait(A_RUN_SECONDS)
                raise
            finally:
                self._alive = False
        self._gone.set()

    def kill(self) -> None:
        self.kills += self._alive
        self._send(signal.SIGKILL)

    async def end(self) -> None:
        self._let_go = True
        self._send(signal.SIGTERM)
        await self._gone.wait()

    def _send(self, number: signal.Signals) -> None:
        if self._alive:
            with suppress(ProcessLookupError):  # it ended just now
                self._process.send(number)


@pytest.fixture
def cluster() -> Generator[Cluster]:
    with running_cluster() as cluster:
        yield cluster


@pytest.fixture
def store_url(cluster: Cluster) -> str:
    return cluster.databases.empty()


class Run:
    """Everybody in it. The seed draws who is killed, and what each caller does."""

    def __init__(self, cluster: Cluster, url: str, folder: Path, seed: int) -> None:
        self._cluster = cluster
        self._database = Database(url)
        self._folder = folder
        self._seed = seed
        servers = [ServerProcess(folder, fresh=True, database_url=url) for _ in range(SERVERS)]
        self._ports = [server.port for server in servers]
        self.servers = [Kept(server) for server in servers]
        self.workers = [self._caller("work", number) for number in range(WORKERS)]
        self.producers = [self._caller("produce", number) for number in range(PRODUCERS)]

    def _caller(self, role: str, number: int) -> Kept:
        return Kept(Caller(role, f"{role}-{number}", self._folder, self._seed, self._ports))

    async def to_the_end(self) -> Evidence:
        """A minute of chaos, then nothing is killed until every job has come to its end."""
        async with asyncio.TaskGroup() as group:
            for kept in (*self.servers, *self.workers, *self.producers):
                group.create_task(kept.run())
            killing = group.create_task(self._kill_at_random())
            outages: list[Outage] = []
            for ended_by in (self._cluster.stop, self._cluster.crash):
                await real_seconds(SECONDS / 3)
                outages.append(await outage(self._cluster, ended_by))
            await real_seconds(SECONDS / 3)
            killing.cancel()
            await end_all(self.producers)
            with suppress(TimeoutError):  # the checker names the jobs that are left
                await self._all_finished()
            await end_all(self.workers)
            await end_all(self.servers)
        return gathered(self._folder, self._database, outages)

    async def _all_finished(self) -> None:
        with self._database.connected() as ask:

            async def nothing_left() -> bool:
                return not ask(UNFINISHED)

            await until(nothing_left, DRAIN_SECONDS)

    async def _kill_at_random(self) -> None:
        """A server only when it serves: on a slow machine they would do nothing but start."""
        chance = random.Random(self._seed)  # noqa: S311 - a failure is to be seen again
        while True:
            await real_seconds(BETWEEN_KILLS_SECONDS)
            server, worker = chance.randrange(SERVERS), chance.choice(self.workers)
            if chance.random() < SERVERS_SHARE and listens(self._ports[server]):
                self.servers[server].kill()
            else:
                worker.kill()

    def kills(self) -> dict[str, int]:
        return {
            "servers": sum(kept.kills for kept in self.servers),
            "workers": sum(kept.kills for kept in self.workers),
        }


async def end_all(kept: Sequence[Kept]) -> None:
    await asyncio.gather(*(one.end() for one in kept))


def listens(port: int) -> bool:
    try:
        socket.create_connection((LOCAL, port), 1).close()
    except OSError:
        return False
    return True


async def outage(cluster: Cluster, ended_by: Callable[[], None]) -> Outage:
    await asyncio.to_thread(ended_by)
    since = wall_clock()
    await real_seconds(AWAY_SECONDS)
    back = wall_clock()
    await asyncio.to_thread(cluster.start)
    return Outage(since, back)


def in_words(found: Sequence[str], evidence: Evidence) -> str:
    """The faults, and all that is known of the first jobs that they name."""
    named = [int(match[1]) for fault in found if (match := re.match(r"job (\d+)", fault))]
    stories = (evidence.story(job_id) for job_id in list(dict.fromkeys(named))[:STORIES])
    return "\n".join([*found, *(line for story in stories for line in ("", *story))])


def steps(evidence: Evidence) -> Counter[str]:
    return Counter(event.action for trail in evidence.trails.values() for event in trail)


async def test_whatever_is_killed_every_job_comes_to_one_end_and_no_two_leases_overlap(
    cluster: Cluster, store_url: str, tmp_path: Path
) -> None:
    seed = random.getrandbits(32)
    logger.info("seed %s", seed)
    run = Run(cluster, store_url, tmp_path, seed)
    evidence = await run.to_the_end()
    answers = Counter(call.status for call in evidence.calls)
    ends = Counter(job.status for job in evidence.jobs.values())
    logger.info("killed: %s", run.kills())
    logger.info("jobs: %s, steps: %s, answers: %s", ends, steps(evidence), answers)
    found = faults(evidence)
    assert not found, f"seed {seed}\n{in_words(found, evidence)}"
    # And it was chaos: servers and workers died, answers were lost, jobs took every kind of turn.
    assert min(run.kills().values()) > 0
    assert answers[None] > 0
    assert answers[503] > 0
    assert steps(evidence).keys() >= {"succeed", "fail", "release", "cancel", "lose"}
