"""A server starts on a fresh file by itself, shares it with nobody, and stops in good order."""

import asyncio
import json
import signal
from asyncio import StreamReader, StreamWriter
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

import pytest

from tests.promises.calls import CREATED, create, get, ok, raw
from tests.promises.servers import (
    LOCAL,
    ORC_SERVE,
    UVICORN,
    ServerProcess,
    connected,
    http_client,
    running_server,
    until,
)

pytestmark = [pytest.mark.process, pytest.mark.timeout(120)]

WAYS: Final = {"orc serve": ORC_SERVE, "uvicorn": UVICORN}
EACH_WAY: Final = pytest.mark.parametrize(
    ("way", "new_store"),
    [
        ("orc serve", "sqlite"),
        pytest.param("uvicorn", "sqlite", marks=pytest.mark.slow),
        pytest.param("orc serve", "postgresql", marks=pytest.mark.slow),
    ],
    indirect=["new_store"],
)


async def test_a_fresh_file_is_made_and_an_old_one_is_taken_as_it_is(tmp_path: Path) -> None:
    async with running_server(tmp_path, fresh=True) as server, http_client(server.url) as http:
        ready = ok(await http.get("/readyz"))
        revision = server.database.value("SELECT version_num FROM alembic_version")
        assert (ready["status"], ready["schema"]) == ("ready", revision)
        assert ready["synchronous"] == "FULL"
        assert server.database.rows("PRAGMA journal_mode") == [{"journal_mode": "wal"}]
        job = await create(http, payload={"kept": True})
        assert await server.stop() == 0
        await server.start()
        assert await get(http, job["id"]) == job
        assert ok(await http.get("/readyz"))["schema"] == revision


@pytest.mark.parametrize("way", WAYS)
async def test_a_second_server_on_one_file_ends_with_a_plain_word(tmp_path: Path, way: str) -> None:
    async with running_server(tmp_path) as first, http_client(first.url) as http:
        second = ServerProcess(tmp_path, command=WAYS[way])
        try:
            await second.spawn()
            assert await second.wait() != 0
        finally:
            await second.end()
        assert f"Another server already owns {first.database.file}" in second.log
        assert "postgresql+asyncpg://" in second.log
        if way == "orc serve":
            assert "Traceback" not in second.log
        await create(http)


@pytest.mark.slow
async def test_workers_of_uvicorn_do_not_share_an_sqlite_file(tmp_path: Path) -> None:
    server = ServerProcess(tmp_path, command=(*UVICORN, "--workers", "2"))
    try:
        await server.spawn()

        async def said() -> bool:
            return "already owns" in server.log and "postgresql+asyncpg://" in server.log

        await until(said, 60)
    finally:
        await server.end()


@EACH_WAY
async def test_sigterm_answers_what_is_open_and_ends(
    tmp_path: Path, store_url: str, way: str
) -> None:
    """Calls that wait for the store, and one whose body is still on its way."""
    late = raw("POST", "/jobs", {"name": "work", "queue": "late"})
    async with (
        running_server(tmp_path, database_url=store_url, command=WAYS[way]) as server,
        AsyncExitStack() as stack,
    ):
        for_late, *callers = [
            await stack.enter_async_context(connected(server.port)) for _ in range(22)
        ]
        for reader, writer in callers:
            await alive(reader, writer)
        for_late[1].write(late[:-10])
        await for_late[1].drain()
        with server.database.locked():
            for _, writer in callers[1:]:
                writer.write(raw("POST", "/jobs", {"name": "work", "queue": "waits"}))
                await writer.drain()
            await alive(*callers[0])  # this came after the others: they have been read
            server.send(signal.SIGTERM)
            await until(lambda: refuses(server.port))
        answers = [await reader.read() for reader, _ in callers[1:]]
        for_late[1].write(late[-10:])
        answers.append(await for_late[0].read())
        assert {answer[:13] for answer in answers} == {f"HTTP/1.1 {CREATED} ".encode()}
        # uvicorn alone ends by the signal that it was sent.
        assert await server.wait(15) == (0 if way == "orc serve" else -signal.SIGTERM)
        created = {json.loads(answer.partition(b"\r\n\r\n")[2])["id"] for answer in answers}
        assert {row["id"] for row in server.database.rows("SELECT id FROM jobs")} == created
        assert len(created) == 21


async def alive(reader: StreamReader, writer: StreamWriter) -> None:
    """One call on this connection, answered."""
    writer.write(f"GET /livez HTTP/1.1\r\nHost: {LOCAL}\r\n\r\n".encode())
    await reader.readuntil(b'{"status":"alive"}')


async def refuses(port: int) -> bool:
    """Whether nobody listens any more."""
    try:
        async with connected(port):
            return False
    except ConnectionRefusedError:
        return True


@EACH_WAY
async def test_sigterm_answers_all_who_wait_at_once(
    tmp_path: Path, store_url: str, way: str
) -> None:
    """Long polls: claims for a job, and a read for its end."""
    async with (
        running_server(
            tmp_path, database_url=store_url, command=WAYS[way], shutdown_seconds=30
        ) as server,
        http_client(server.url) as http,
        AsyncExitStack() as stack,
    ):
        job = await create(http, queue="other")
        callers = [await stack.enter_async_context(connected(server.port)) for _ in range(21)]
        for _, writer in callers[1:]:
            writer.write(raw("POST", "/jobs/claim", {"worker_id": "w", "wait_seconds": 60}))
        path = f"/jobs/{job['id']}?wait_seconds=60"
        callers[0][1].write(f"GET {path} HTTP/1.1\r\nHost: {LOCAL}\r\n\r\n".encode())
        for _ in range(3):  # these came after the others: they have been read
            await create(http, queue="other")
        server.send(signal.SIGTERM)
        async with asyncio.timeout(3):
            read, *claims = [await reader.read() for reader, _ in callers]
        assert {answer[:12] for answer in claims} == {b"HTTP/1.1 204"}
        assert read[:12] == b"HTTP/1.1 200"
        assert await server.wait(15) == (0 if way == "orc serve" else -signal.SIGTERM)


@pytest.mark.parametrize(
    ("way", "new_store"),
    [
        ("orc serve", "sqlite"),
        pytest.param("uvicorn", "sqlite", marks=pytest.mark.slow),
        ("orc serve", "postgresql"),
    ],
    indirect=["new_store"],
)
@pytest.mark.slow
async def test_at_the_deadline_everyone_is_answered_though_the_store_stands_still(
    tmp_path: Path, store_url: str, way: str
) -> None:
    """Claims that wait for the store, and a create whose body never ends."""
    async with (
        running_server(
            tmp_path, database_url=store_url, command=WAYS[way], shutdown_seconds=1
        ) as server,
        AsyncExitStack() as stack,
    ):
        callers = [await stack.enter_async_context(connected(server.port)) for _ in range(5)]
        with server.database.locked():
            for _, writer in callers[:4]:
                writer.write(raw("POST", "/jobs/claim", {"worker_id": "w"}))
            callers[4][1].write(raw("POST", "/jobs", {"name": "work"})[:-5])
            async with connected(server.port) as (reader, writer):
                await alive(reader, writer)  # this came after the others: they have been read
            server.send(signal.SIGTERM)
            async with asyncio.timeout(4):
                answers = [await reader.read() for reader, _ in callers]
            assert await server.wait(6) == (0 if way == "orc serve" else -signal.SIGTERM)
    assert {answer.split(b"\r\n")[0] for answer in answers} == {b"HTTP/1.1 503 Service Unavailable"}
    codes = [json.loads(answer.partition(b"\r\n\r\n")[2])["code"] for answer in answers]
    assert set(codes) <= {"shutting-down", "store-unavailable"}
    assert codes[4] == "shutting-down"
    assert server.database.rows("SELECT id FROM jobs") == []
