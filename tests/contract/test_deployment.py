"""What the containers do, done by processes: the commands, the environments and the healthchecks of
Dockerfile and docker-compose.yml, on a real PostgreSQL that asks for the password.

ORC_TEST_BIN is the folder of the commands that are tested; .ci/run gives that of an environment
into which the wheel and its locked dependencies were installed. Else they are this environment's.
"""

import asyncio
import json
import os
import shutil
import signal
import socket
import struct
from collections import Counter
from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import httpx
import pytest

from compute_orchestrator.client import OrchestratorClient
from compute_orchestrator.settings import Settings
from tests.clusters import Cluster, running_cluster
from tests.contract.containers import (
    command_of,
    environment_of,
    healthcheck_of,
    image_command,
    image_environment,
    image_healthcheck,
)
from tests.contract.tree import BIN, ROOT
from tests.promises.calls import create, get, ok
from tests.promises.servers import (
    LOCAL,
    connected,
    free_port,
    http_client,
    real_seconds,
    until,
)

if TYPE_CHECKING:
    from asyncio.subprocess import Process

pytestmark = [pytest.mark.process, pytest.mark.slow, pytest.mark.timeout(120)]

TESTED = Path(os.environ.get("ORC_TEST_BIN", BIN))
EXAMPLES = ROOT / "examples"
HAPROXY = shutil.which("haproxy", path=f"{os.environ['PATH']}:/usr/sbin")

Job = dict[str, Any]


def clean_environment(given: dict[str, str]) -> dict[str, str]:
    """Nothing of the tree that the tests run in is seen, but the commands that are tested."""
    dropped = ("ORC_", "PYTHON", "VIRTUAL_ENV", "COVERAGE")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
    elsewhere = [folder for folder in os.environ["PATH"].split(":") if folder != str(BIN)]
    return inherited | {"PATH": ":".join([str(TESTED), *elsewhere])} | given


class Container:
    """A command of the image or of a service, as a process."""

    def __init__(
        self, folder: Path, command: Sequence[str], environment: dict[str, str], *, cwd: Path
    ) -> None:
        self.environment = environment
        self._command = command
        self._cwd = cwd
        self._log = folder / f"{command[1]}-{free_port()}.log"
        self._process: Process | None = None

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    async def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self._command,
                env=clean_environment(self.environment),
                cwd=self._cwd,
                stdout=log,
                stderr=log,
            )

    async def is_healthy(self, check: Sequence[str]) -> bool:
        assert self._process is not None
        assert self._process.returncode is None, self.log
        asked = await asyncio.create_subprocess_exec(
            *check,
            env=clean_environment(self.environment),
            cwd=self._cwd,
            stderr=asyncio.subprocess.DEVNULL,
        )
        return await asked.wait() == 0

    async def until_healthy(self, check: Sequence[str]) -> None:
        await until(lambda: self.is_healthy(check))

    def stop(self) -> None:
        os.kill(self.pid, signal.SIGTERM)

    async def code(self) -> int:
        assert self._process is not None
        async with asyncio.timeout(30):
            return await self._process.wait()

    async def end(self) -> None:
        """However the test went."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()


class Deployment:
    """The services of the compose file as processes: addresses differ, and nothing else."""

    def __init__(self, folder: Path, database_url: str, started: AsyncExitStack) -> None:
        self._folder = folder
        self._database_url = database_url
        self._started = started

    def _container(self, service: str, *, cwd: Path, **addresses: str) -> Container:
        environment = environment_of(service) | addresses
        container = Container(self._folder, command_of(service), environment, cwd=cwd)
        self._started.push_async_callback(container.end)
        return container

    async def migrate(self) -> Container:
        container = self._container(
            "migrate", cwd=self._folder, ORC_DATABASE_URL=self._database_url
        )
        await container.start()
        return container

    async def server(self, *, host: str = LOCAL, port: int, **settings: str) -> Container:
        container = self._container(
            "server",
            cwd=self._folder,
            ORC_DATABASE_URL=self._database_url,
            ORC_HOST=host,
            ORC_PORT=str(port),
            **settings,
        )
        await container.start()
        return container

    async def proxy(self, *, port: int, servers_port: int, names_port: int) -> Container:
        assert HAPROXY
        rules = (EXAMPLES / "haproxy.cfg").read_text()
        for theirs, ours in (
            ("bind :8000", f"bind {LOCAL}:{port}"),
            (" server:8000 ", f" server:{servers_port} "),
            ("127.0.0.11:53", f"{LOCAL}:{names_port}"),
        ):
            assert theirs in rules
            rules = rules.replace(theirs, ours)
        path = self._folder / "haproxy.cfg"
        path.write_text(rules)
        container = Container(self._folder, [HAPROXY, "-f", str(path)], {}, cwd=self._folder)
        self._started.push_async_callback(container.end)
        await container.start()
        return container

    async def worker(self, url: str) -> Container:
        container = self._container("worker", cwd=EXAMPLES, JOB_SERVER=url)
        await container.start()
        return container


def let_in(cluster: Cluster, role: str, password: str) -> str:
    """A role that has to say its password, and a database of its own; the URL without it."""
    databases = cluster.databases
    databases.command(f"CREATE ROLE {role} LOGIN PASSWORD '{password}'")
    databases.command(f"CREATE DATABASE {role} OWNER {role}")
    rules = Path(databases.ask(lambda connection: connection.fetchval("SHOW hba_file")))
    rules.write_text(f"local all {role} scram-sha-256\n{rules.read_text()}")
    databases.command("SELECT pg_reload_conf()")
    return f"postgresql://{role}@/{role}?host={cluster.socket.parent}"


@pytest.fixture
def database_url() -> Generator[str]:
    """What the compose file's `database` is to the others."""
    made = environment_of("database")
    with running_cluster() as cluster:
        yield let_in(cluster, made["POSTGRES_USER"], made["POSTGRES_PASSWORD"])


@pytest.fixture
async def deployment(tmp_path: Path, database_url: str) -> AsyncGenerator[Deployment]:
    async with AsyncExitStack() as started:
        yield Deployment(tmp_path, database_url, started)


async def all_jobs(http: httpx.AsyncClient) -> list[Job]:
    return ok(await http.get("/jobs?limit=500"))["jobs"]


async def are_done(http: httpx.AsyncClient, count: int) -> bool:
    statuses = Counter(job["status"] for job in await all_jobs(http))
    return statuses["succeeded"] >= count


async def greet(http: httpx.AsyncClient, number: int) -> Job:
    return await create(http, name="greet", payload={"name": str(number)})


async def assert_greeted_once(http: httpx.AsyncClient, jobs: list[Job]) -> None:
    """By number, in the order of the jobs; nobody lost a lease over it."""
    for number, job in enumerate(jobs):
        assert (await get(http, job["id"]))["result"] == f"Hello, {number}!"
        events = ok(await http.get(f"/jobs/{job['id']}/events"))["events"]
        actions = Counter(event["action"] for event in events)
        assert (actions["succeed"], actions["lose"], actions["fail"]) == (1, 0, 0)


async def test_the_image_serves_an_sqlite_file(tmp_path: Path) -> None:
    port = free_port()
    environment = image_environment() | {
        "ORC_HOST": LOCAL,
        "ORC_PORT": str(port),
        "ORC_DATABASE_URL": f"sqlite+aiosqlite:///{tmp_path}/data/orc.db",
    }
    del environment["PATH"]
    server = Container(tmp_path, image_command(), environment, cwd=tmp_path)
    try:
        await server.start()
        await server.until_healthy(image_healthcheck())
        async with http_client(f"http://{LOCAL}:{port}") as http:
            job = await create(http)
            assert await get(http, job["id"]) == job
        server.stop()
        assert await server.code() == 0
        assert not await reachable(port)
    finally:
        await server.end()


async def reachable(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection(LOCAL, port)
    except ConnectionRefusedError:
        return False
    writer.close()
    return True


async def test_the_services_work_and_stop_without_losing_a_job(deployment: Deployment) -> None:
    # Two at once: one migrates, and the other waits for it.
    migrations = [await deployment.migrate(), await deployment.migrate()]
    assert [await one.code() for one in migrations] == [0, 0], [one.log for one in migrations]

    ports = [free_port(), free_port()]
    servers = [await deployment.server(port=port) for port in ports]
    for server in servers:
        await server.until_healthy(healthcheck_of("server"))
    first, second = (f"http://{LOCAL}:{port}" for port in ports)
    worker = await deployment.worker(second)
    async with http_client(first) as http, http_client(second) as other:
        jobs = [await greet(http, number) for number in range(20)]
        await until(lambda: are_done(other, 3))
        await worker.until_healthy(healthcheck_of("worker"))

        for container in (worker, *servers):
            container.stop()
        codes = [await container.code() for container in (worker, *servers)]
        assert codes == [0, 0, 0], [container.log for container in (worker, *servers)]

    # The next day: the same database, a server and a worker.
    server = await deployment.server(port=ports[0])
    await server.until_healthy(healthcheck_of("server"))
    await deployment.worker(first)
    async with http_client(first) as http:
        await until(lambda: are_done(http, len(jobs)))
        await assert_greeted_once(http, jobs)


async def test_a_worker_that_the_servers_have_not_heard_of_is_not_healthy(
    deployment: Deployment,
) -> None:
    await (await deployment.migrate()).code()
    port = free_port()
    server = await deployment.server(port=port)
    await server.until_healthy(healthcheck_of("server"))
    worker = await deployment.worker(f"http://{LOCAL}:{free_port()}")  # nobody is there
    worker.environment["JOB_SERVER"] = f"http://{LOCAL}:{port}"
    assert not await worker.is_healthy(healthcheck_of("worker"))


class Names:
    """The name server of the containers: says where the servers are."""

    def __init__(self) -> None:
        self.addresses: list[str] = []
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((LOCAL, 0))
        self.port: int = self._socket.getsockname()[1]

    def __enter__(self) -> Self:
        asyncio.get_running_loop().add_reader(self._socket, self._answer)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.get_running_loop().remove_reader(self._socket)
        self._socket.close()

    def _answer(self) -> None:
        asked, sender = self._socket.recvfrom(4096)
        question = asked[12 : asked.index(b"\0", 12) + 5]
        wants_address = question[-4:] == b"\0\1\0\1"
        addresses = self.addresses if wants_address else []
        header = asked[:2] + struct.pack(">HHHHH", 0x8580, 1, len(addresses), 0, 0)
        answers = [
            b"\xc0\x0c" + struct.pack(">HHIH", 1, 1, 1, 4) + socket.inet_aton(address)
            for address in addresses
        ]
        self._socket.sendto(header + question + b"".join(answers), sender)


@pytest.mark.skipif(HAPROXY is None, reason="haproxy is not installed")
class TestTheProxy:
    """examples/haproxy.cfg in front of two servers, with other addresses."""

    @pytest.fixture
    async def names(self) -> AsyncGenerator[Names]:
        with Names() as names:
            yield names

    @pytest.fixture
    async def servers(
        self, deployment: Deployment, names: Names
    ) -> list[tuple[Container, str, int]]:
        """Closed ones: they refuse whatever comes with a forwarded header."""
        assert await (await deployment.migrate()).code() == 0
        port = free_port()
        servers = [
            (await deployment.server(host=host, port=port, ORC_INSECURE_OPEN="0"), host, port)
            for host in ("127.0.0.2", "127.0.0.3")
        ]
        names.addresses = [host for _, host, _ in servers]
        return servers

    @pytest.fixture
    async def address(
        self, deployment: Deployment, names: Names, servers: list[tuple[Container, str, int]]
    ) -> str:
        port = free_port()
        await deployment.proxy(port=port, servers_port=servers[0][2], names_port=names.port)
        url = f"http://{LOCAL}:{port}"
        async with http_client(url) as http:
            await until(lambda: answers(http, 200))
        return url

    async def test_a_server_that_is_exchanged_costs_nobody_a_job(
        self, deployment: Deployment, servers: list[tuple[Container, str, int]], address: str
    ) -> None:
        await deployment.worker(address)
        await deployment.worker(address)
        jobs: list[Job] = []
        async with http_client(address) as http, OrchestratorClient(address) as producer:
            exchanged = asyncio.Event()

            async def produce() -> None:
                while not exchanged.is_set():
                    job = await producer.create("greet", {"name": str(len(jobs))})
                    jobs.append({"id": job.id})
                    await real_seconds(0.02)

            producing = asyncio.create_task(produce())
            for server, host, port in servers:
                before = len(jobs)
                await until(lambda before=before: more_than(jobs, before + 20))
                server.stop()
                assert await server.code() == 0, server.log
                again = await deployment.server(host=host, port=port, ORC_INSECURE_OPEN="0")
                async with http_client(f"http://{host}:{port}") as direct:
                    await until(lambda direct=direct: answers(direct, 200))
                assert "Traceback" not in again.log
            exchanged.set()
            await producing
            await until(lambda: are_done(http, len(jobs)))
            await assert_greeted_once(http, jobs)

    async def test_who_waits_for_work_gets_it_and_who_went_away_does_not(
        self, address: str
    ) -> None:
        wish = {"worker_id": "patient", "wait_seconds": 30}
        async with http_client(address) as http:
            port = httpx.URL(address).port
            assert port
            async with connected(port) as (_, writer):
                body = json.dumps({"worker_id": "gone", "wait_seconds": 30}).encode()
                head = f"POST /jobs/claim HTTP/1.1\r\nHost: {LOCAL}\r\nContent-Length: {len(body)}"
                writer.write(f"{head}\r\nContent-Type: application/json\r\n\r\n".encode() + body)
                await writer.drain()
                await until(lambda: was_seen(http, "gone"))
            waiting = asyncio.create_task(http.post("/jobs/claim", json=wish))
            await until(lambda: was_seen(http, "patient"))
            job = await create(http)
            assert ok(await waiting)["id"] == job["id"]

    async def test_the_largest_body_passes_and_a_larger_one_is_refused_by_the_server(
        self, address: str
    ) -> None:
        largest = Settings().max_body_bytes
        body = b'{"name": "work"'
        async with http_client(address) as http:
            headers = {"Content-Type": "application/json"}
            padded = body + b" " * (largest - len(body) - 1) + b"}"
            assert (await http.post("/jobs", content=padded, headers=headers)).status_code == 201
            refused = await http.post("/jobs", content=padded + b" ", headers=headers)
            assert (refused.status_code, refused.json()["code"]) == (413, "payload-too-large")

    async def test_without_a_server_it_is_a_503_that_says_when_to_come_back(
        self, servers: list[tuple[Container, str, int]], address: str
    ) -> None:
        for server, _, _ in servers:
            server.stop()
            assert await server.code() == 0
        async with http_client(address) as http:
            answer = await http.get("/readyz")
            assert answer.status_code == 503
            assert answer.headers["Retry-After"] == "1"
            assert answer.headers["Content-Type"] == "application/problem+json"
            assert answer.json()["status"] == 503


async def answers(http: httpx.AsyncClient, status: int) -> bool:
    try:
        return (await http.get("/readyz")).status_code == status
    except httpx.TransportError:
        return False


async def more_than(jobs: list[Job], count: int) -> bool:
    return len(jobs) > count


async def was_seen(http: httpx.AsyncClient, worker_id: str) -> bool:
    workers = ok(await http.get("/workers"))["workers"]
    return worker_id in {worker["worker_id"] for worker in workers}
