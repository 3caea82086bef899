"""`orc` as a shell runs it, on a real server: exit codes, pipes, signals, and a cut-off file."""

import asyncio
import json
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import pytest
import pytest_asyncio

from tests.client.wires import Exchange, Proxy, proxy_to
from tests.promises.servers import ServerProcess, free_port, http_client, running_server

pytestmark = pytest.mark.process

ORC: Final = (sys.executable, "-m", "compute_orchestrator.cli.app")
JOBS: Final = 2_500

SHOW_MODULES: Final = """
import sys
from compute_orchestrator.cli.app import main
try:
    main()
finally:
    packages = {name.split(".")[0] for name in sys.modules}
    known = {"alembic", "fastapi", "httpx", "pydantic", "sqlalchemy", "starlette", "uvicorn"}
    print(*sorted(known & packages), file=sys.stderr)
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[ServerProcess]:
    """With so many jobs that a list of them fills any pipe."""
    async with running_server(tmp_path_factory.mktemp("server")) as server:
        async with http_client(server.url) as http:
            jobs = [{"name": "resize", "tags": ["many"]}] * 500
            assert (await http.post("/jobs/bulk", json={"jobs": jobs})).status_code == 201
        yield server


async def start(
    *words: str, program: tuple[str, ...] = ORC, folder: Path | None = None, **settings: str
) -> Process:
    environment = {name: text for name, text in os.environ.items() if not name.startswith("ORC_")}
    return await asyncio.create_subprocess_exec(
        *program, *words, cwd=folder, env=environment | settings, stdout=PIPE, stderr=PIPE
    )


async def ended(process: Process) -> tuple[int | None, str, str]:
    """The exit code, and what was written."""
    async with asyncio.timeout(50):
        out, err = await process.communicate()
    return process.returncode, out.decode(), err.decode()


@asynccontextmanager
async def proxied(server: ServerProcess) -> AsyncGenerator[Proxy]:
    async with proxy_to(server.port) as proxy:
        yield proxy


async def test_a_server_that_is_not_there_is_code_5_and_no_secret_is_told() -> None:
    url = f"http://user:secret@127.0.0.1:{free_port()}/?token=secret"
    code, out, err = await ended(await start("jobs", "list", ORC_URL=url))
    assert (code, out) == (5, "")
    assert err.startswith("orc: the server can't be reached: GET http://127.0.0.1:")
    assert err.count("\n") == 1
    assert "secret" not in err


async def test_a_reader_who_leaves_is_answered_by_silence(server: ServerProcess) -> None:
    script = '"$@" | head -n 1 | wc -l; echo "${PIPESTATUS[0]}"'
    shell = ("bash", "-c", script, "bash", *ORC)
    process = await start("jobs", "list", "--all", "--json", program=shell, ORC_URL=server.url)
    _, out, err = await ended(process)
    assert (out.split(), err) == (["1", "141"], "")


@pytest.mark.slow
async def test_letters_that_the_output_can_not_show_are_no_failure(server: ServerProcess) -> None:
    async def latin(*words: str) -> str:
        process = await start(*words, ORC_URL=server.url, PYTHONIOENCODING="latin-1")
        code, out, _ = await ended(process)
        assert code == 0
        return out

    job = json.loads(await latin("submit", "画像", "--json"))
    assert job["name"] == "画像"
    out = await latin("jobs", "show", str(job["id"]))
    assert r"name      \u753b\u50cf" in out.splitlines()


async def test_ctrl_c_ends_a_wait_with_130(server: ServerProcess) -> None:
    async with proxied(server) as proxy:
        process = await start("jobs", "wait", "1", ORC_URL=proxy.url)
        await proxy.record.until("GET /jobs/1")
        process.send_signal(signal.SIGINT)
        assert await ended(process) == (130, "", "")


async def test_a_command_loads_no_more_than_it_needs(server: ServerProcess) -> None:
    """`orc --help` has no use for the client, and nothing that only asks has one for the server."""
    program = (sys.executable, "-c", SHOW_MODULES)
    helped, listed = [
        await start(*words, program=program, ORC_URL=server.url)
        for words in (["--help"], ["jobs", "list"])
    ]
    assert (await ended(helped))[2] == "\n"
    assert (await ended(listed))[2] == "httpx pydantic\n"


async def test_a_shell_can_complete_its_words(tmp_path: Path) -> None:
    shown = await start("--show-completion", "bash")
    installed = await start("--install-completion", "bash", HOME=str(tmp_path))
    words = "orc jobs list --status s"
    completed = await start(_ORC_COMPLETE="complete_bash", COMP_WORDS=words, COMP_CWORD="4")
    code, script, _ = await ended(shown)
    assert code == 0
    assert "complete -o default -F _orc_completion orc" in script
    assert (await ended(installed))[0] == 0
    assert (tmp_path / ".bash_completions" / "orc.sh").read_text().strip() == script.strip()
    assert (await ended(completed))[:2] == (0, "succeeded\n")


class LosesFromTheSecondOn(Proxy):
    """Of the bulk calls it answers the first; the server takes the second, and nobody hears."""

    bulk_calls = 0

    def _is_lost(self, exchange: Exchange) -> bool:
        self.bulk_calls += exchange.is_like("POST /jobs/bulk")
        return self.bulk_calls > 1


async def test_a_file_that_kill_minus_nine_cut_off_is_made_whole_by_a_repeat(
    server: ServerProcess, tmp_path: Path
) -> None:
    lines = [{"name": "resize", "queue": "cut-off", "payload": n} for n in range(JOBS)]
    (tmp_path / "jobs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    words = ("submit", "--file", "jobs.jsonl")
    proxy = await LosesFromTheSecondOn(server.port).come()
    process = await start(*words, folder=tmp_path, ORC_URL=proxy.url)
    await proxy.record.until("POST /jobs/bulk", times=2)
    process.kill()
    assert (await ended(process))[0] == -signal.SIGKILL
    await proxy.go_away()

    repeat = await start(*words, "--json", folder=tmp_path, ORC_URL=server.url)
    code, out, err = await ended(repeat)
    assert (code, err) == (0, "")
    said = json.loads(out)
    assert (said["made"], said["already_there"]) == (JOBS - 2_000, 2_000)
    made = "SELECT id, payload FROM jobs WHERE queue = 'cut-off' ORDER BY id"
    rows = server.database.rows(made)
    assert [int(row["payload"]) for row in rows] == list(range(JOBS))
    assert said["ids"] == [row["id"] for row in rows]


class Terminal:
    """A command that has a terminal, and what it drew there so far."""

    def __init__(self) -> None:
        self._ours, self._its = os.openpty()
        self._drawn = b""
        self._grew = asyncio.Condition()

    async def start(self, *words: str) -> Process:
        process = await asyncio.create_subprocess_exec(
            *ORC, *words, stdin=self._its, stdout=self._its, stderr=self._its
        )
        os.close(self._its)
        asyncio.get_running_loop().add_reader(self._ours, self._read)
        return process

    def type(self, keys: str) -> None:
        os.write(self._ours, keys.encode())

    async def until_it_shows(self, words: str) -> None:
        """From here on: what was drawn before counts no more."""
        self._drawn = b""
        async with asyncio.timeout(30), self._grew:
            await self._grew.wait_for(lambda: words.encode() in self._drawn)

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._ours)
        os.close(self._ours)

    def _read(self) -> None:
        try:
            self._drawn += os.read(self._ours, 2**16)
        except OSError:  # the command has ended
            asyncio.get_running_loop().remove_reader(self._ours)
        self._waking = asyncio.ensure_future(self._wake())

    async def _wake(self) -> None:
        async with self._grew:
            self._grew.notify_all()


async def test_top_goes_on_while_the_server_is_away_until_q(server: ServerProcess) -> None:
    terminal = Terminal()
    async with proxied(server) as proxy:
        top = await terminal.start("top", "--refresh-seconds", "0.1", "--url", proxy.url)
        await terminal.until_it_shows("QUEUE")
        await proxy.go_away()
        await terminal.until_it_shows("no news for")
        await proxy.come()
        await terminal.until_it_shows("created/s, 0.0 finished/s (last 0.")
        terminal.type("q")
        async with asyncio.timeout(20):
            assert await top.wait() == 0
    terminal.close()
