"""On a real socket: early answers, large, slow and cut bodies, kept connections, header bytes.

The server listens in this process on the test's clock; the client is raw bytes.
"""

import asyncio
import json
import logging

import pytest

from tests.api.calls import Api, Json
from tests.api.conftest import MakeListening
from tests.api.listening import Answer, Connection, Listening, head
from tests.stores import only_sqlite

new_store = only_sqlite

MIB = 1024 * 1024
CREATE = b'{"name": "a"}'
CLAIM = b'{"worker_id": "w"}'
CHUNKED = "Transfer-Encoding: chunked"


def chunk(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


def code(answer: Answer) -> str:
    """The code of a problem."""
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["status"] == answer.status
    return answer.json()["code"]


async def test_a_call_over_the_wire(server: Listening) -> None:
    answer = await server.ask("POST", "/jobs", body=CREATE)
    assert answer.status == 201
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["location"] == f"/jobs/{answer.json()['id']}"
    assert (await server.ask("POST", "/jobs/claim", body=CLAIM)).status == 200
    answer = await server.ask("POST", "/jobs/claim", body=CLAIM)
    assert (answer.status, answer.body) == (204, b"")
    assert "server" not in answer.headers


# Early answers


@pytest.mark.parametrize(
    ("method", "path", "header", "expected"),
    [
        ("POST", "/jobs", "Origin: http://evil.example", "origin-refused"),
        ("POST", "/jobs", "X-Forwarded-For: 10.0.0.5", "not-local"),
        ("POST", "/nothing", "Accept: */*", "not-found"),
        ("PUT", "/jobs", "Accept: */*", "method-not-allowed"),
        ("POST", "/jobs?foo=1", "Accept: */*", "validation-error"),
        ("POST", "/jobs", "Content-Type: text/plain", "unsupported-media-type"),
    ],
)
async def test_a_refusal_of_a_large_body_is_seen_and_the_connection_kept(
    server: Listening, method: str, path: str, header: str, expected: str
) -> None:
    connection = await server.connect()
    for framing in ("length", "chunks"):
        body = b"x" * (4 * MIB)
        if framing == "length":
            answer = await connection.ask(method, path, header, body=body)
        else:
            await connection.send(head(method, path, header, CHUNKED), chunk(body), chunk(b""))
            answer = await connection.answer()
        assert code(answer) == expected
        assert (await connection.ask("GET", "/livez")).status == 200


@pytest.mark.parametrize("framing", ["length", "chunks"])
async def test_a_body_that_is_too_large_is_thrown_away_and_the_answer_seen(
    make_listening: MakeListening, framing: str
) -> None:
    server = await make_listening(max_body_bytes=MIB)
    before = server.world.database.everything()
    connection = await server.connect()
    body = b" " * (8 * MIB)
    if framing == "length":
        answer = await connection.ask("POST", "/jobs", body=body)
    else:
        await connection.send(head("POST", "/jobs", CHUNKED), chunk(body), chunk(b""))
        answer = await connection.answer()
    assert (answer.status, code(answer)) == (413, "payload-too-large")
    if answer.headers.get("connection") == "close":
        assert await connection.is_closed()
    assert server.world.database.everything() == before
    assert (await server.ask("POST", "/jobs", body=CREATE)).status == 201


async def test_no_more_than_64_mib_are_thrown_away(make_listening: MakeListening) -> None:
    server = await make_listening(max_body_bytes=MIB)
    connection = await server.connect()
    await connection.send(head("POST", "/jobs", CHUNKED))
    part = chunk(b" " * (4 * MIB))
    sent = 0
    try:
        while sent < 128:
            await connection.send(part)
            sent += 4
    except ConnectionError:  # so far the answer could be seen; who goes on loses it
        pass
    assert 64 <= sent <= 96  # and what lay in between in buffers
    assert (await server.ask("GET", "/livez")).status == 200


# Slow and cut


async def test_a_body_that_stops_is_408(make_listening: MakeListening) -> None:
    server = await make_listening(receive_timeout_seconds=0.05)
    for sent in (b"", CREATE):
        connection = await server.connect()
        await connection.send(head("POST", "/jobs", length=100), sent)
        answer = await connection.answer()
        assert (answer.status, code(answer)) == (408, "request-timeout")
        assert answer.headers["connection"] == "close"
        assert await connection.is_closed()


async def test_a_body_that_trickles_is_408(make_listening: MakeListening) -> None:
    server = await make_listening(receive_timeout_seconds=0.2)
    before = server.world.database.everything()
    connection = await server.connect()
    await connection.send(head("POST", "/jobs", CHUNKED))
    answering = asyncio.create_task(connection.answer())
    while not answering.done():
        await connection.send(chunk(b" "))
        await asyncio.wait({answering}, timeout=0.01)
    answer = await answering
    assert (answer.status, code(answer)) == (408, "request-timeout")
    assert server.world.database.everything() == before


async def test_a_body_that_is_cut_writes_nothing_and_is_no_fault_of_the_server(
    server: Listening, caplog: pytest.LogCaptureFixture
) -> None:
    before = server.world.database.everything()
    for parts in (
        [head("POST", "/jobs", length=100)],
        [head("POST", "/jobs", length=100), CREATE],
        [head("POST", "/jobs", CHUNKED), chunk(CREATE)],
        [head("POST", "/jobs/claim", length=100), CLAIM],
        [head("PATCH", "/jobs/1/status", length=100), b"{"],
        [b"POST /jobs HTTP/1.1\r\nHost: 127.0"],
        [b""],
    ):
        connection = await server.connect()
        await connection.send(*parts)
        await server.ask("GET", "/livez")  # the server has read what was sent
        await connection.close()
    await server.ask("GET", "/queues")
    assert server.world.database.everything() == before
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


async def until(api: Api, job: Json, actions: list[str]) -> Json:
    """Wait until a job's trail shows these actions."""
    async with asyncio.timeout(20):
        while await api.actions(job) != actions:
            pass
    return await api.get(job)


async def claim_and_vanish(server: Listening, body: bytes) -> None:
    """Send a claim, and be gone before the store can answer."""
    connection = await server.connect()
    with server.world.database.locked():  # the server's next transaction waits behind this one
        await connection.send(head("POST", "/jobs/claim", length=len(body)), body)
        await server.ask("GET", "/queues")  # the claim has come to the store by now
        await connection.close()
        await server.ask("GET", "/queues")  # and the server knows that its client left


async def test_a_claimer_that_vanished_has_its_lease_handed_back(server: Listening) -> None:
    api = Api(server.world.http)
    job = await api.create()
    await claim_and_vanish(server, CLAIM)
    back = await until(api, job, ["create", "claim", "release"])
    assert (back["status"], back["release_count"], back["retry_count"]) == ("queued", 0, 0)
    assert back["run_at"] == job["run_at"]
    assert (await api.events(job))[-1]["actor"] == "server"


async def test_a_claimer_with_a_request_id_finds_its_lease_again(server: Listening) -> None:
    api = Api(server.world.http)
    job = await api.create()
    await claim_and_vanish(server, b'{"worker_id": "w", "request_id": "r"}')
    held = await until(api, job, ["create", "claim"])
    assert held["status"] == "running"
    lease = await api.claim("w", request_id="r")
    assert (lease["id"], lease["attempt"]) == (job["id"], 1)
    assert await api.actions(job) == ["create", "claim"]


async def test_what_a_vanished_producer_asked_for_took_effect_wholly_or_not_at_all(
    server: Listening, caplog: pytest.LogCaptureFixture
) -> None:
    api = Api(server.world.http)
    with server.world.database.locked():
        for _ in range(2):  # the second waits for the turn after the first
            other = await server.connect()
            await other.send(head("POST", "/jobs", length=len(CREATE)), CREATE)
            await server.ask("GET", "/queues")
            await other.close()
    await api.create("last")
    jobs = await api.jobs(order="oldest")
    assert [job["name"] for job in jobs] in (["a", "a", "last"], ["a", "last"], ["last"])
    for job in jobs:
        assert await api.actions(job) == ["create"]
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


# Kept connections


async def test_a_connection_is_kept_over_every_refusal(server: Listening) -> None:
    connection = await server.connect()

    async def refused(
        expected: str, method: str, path: str, *headers: str, body: bytes = b""
    ) -> None:
        assert code(await connection.ask(method, path, *headers, body=body)) == expected

    job = (await connection.ask("POST", "/jobs", body=CREATE)).json()
    for _ in range(2):
        await refused("not-found", "GET", "/nothing")
        await refused("job-not-found", "GET", "/jobs/17")
        await refused("method-not-allowed", "DELETE", "/jobs")
        await refused("validation-error", "POST", "/jobs", body=b"{")
        await refused("validation-error", "POST", "/jobs", body=b"\xff")
        await refused("unsupported-media-type", "POST", "/jobs", "Content-Type: a/b", body=CREATE)
        await refused("origin-refused", "POST", "/jobs", "Origin: null", body=CREATE)
        await refused("not-local", "POST", "/jobs", "Forwarded: for=x", body=CREATE)
        await refused("host-refused", "POST", "/jobs", "Host: evil.example", body=CREATE)
        report = b'{"status": "succeeded", "worker_id": "w", "lease_token": "x"}'
        await refused("lease-lost", "PATCH", f"/jobs/{job['id']}/status", body=report)
    assert (await connection.ask("POST", "/jobs/claim", body=CLAIM)).json()["id"] == job["id"]


async def test_a_head_is_405_without_a_body(server: Listening) -> None:
    connection = await server.connect()
    for path in ("/jobs", "/livez", "/jobs/1"):
        answer = await connection.ask("HEAD", path)
        assert answer.status == 405
        assert "GET" in answer.headers["allow"]
        assert (await connection.ask("GET", "/livez")).status == 200  # in step still


async def test_other_methods_are_refused(server: Listening) -> None:
    for method in ("PROPFIND", "TRACE", "OPTIONS", "CONNECT"):
        answer = await server.ask(method, "/jobs")
        assert (answer.status, code(answer)) == (405, "method-not-allowed")
    for method in ("BREW", "get", "G@T"):
        assert (await server.ask(method, "/jobs")).status in (400, 405)
    assert (await server.ask("GET", "/livez")).status == 200


async def test_pipelined_calls_are_answered_in_their_order(server: Listening) -> None:
    connection = await server.connect()
    calls = [head("POST", "/jobs", length=len(CREATE)) + CREATE, head("GET", "/nothing")]
    await connection.send(b"".join(calls * 3))
    statuses = [(await connection.answer()).status for _ in range(6)]
    assert statuses == [201, 404] * 3


async def test_a_client_that_expects_100_is_told_to_go_on(server: Listening) -> None:
    connection = await server.connect()
    expect = "Expect: 100-continue"
    await connection.send(head("POST", "/jobs", expect, length=len(CREATE)))
    assert (await connection.answer()).status == 100
    await connection.send(CREATE)
    assert (await connection.answer()).status == 201
    await connection.send(head("POST", "/jobs", expect, "Origin: null", length=len(CREATE)))
    assert (await connection.answer()).status == 403


async def test_chunks_are_one_body(server: Listening) -> None:
    connection = await server.connect()
    parts = [chunk(bytes([byte])) for byte in CREATE]
    await connection.send(head("POST", "/jobs", CHUNKED), *parts, chunk(b""))
    assert (await connection.answer()).json()["name"] == "a"


async def test_a_large_job_comes_back_whole(server: Listening) -> None:
    payload = "é" * (MIB // 2 - 1)
    body = json.dumps({"name": "a", "payload": payload}, ensure_ascii=False).encode()
    created = await server.ask("POST", "/jobs", body=body)
    assert created.status == 201
    assert created.json()["payload"] == payload
    claimed = await server.ask("POST", "/jobs/claim", body=CLAIM)
    assert claimed.json()["payload"] == payload


# Header bytes


async def test_a_request_names_exactly_one_host(server: Listening) -> None:
    for lines, expected in (
        ([], 421),
        (["Host: 127.0.0.1", "Host: 127.0.0.1"], 421),
        (["Host: evil.example"], 421),
        (["Host:"], 421),
        (["host:   LOCALHOST:1  "], 200),
    ):
        connection = await server.connect()
        await connection.send("\r\n".join(["GET /livez HTTP/1.1", *lines, "", ""]).encode())
        answer = await connection.answer()
        assert answer.status == expected, lines
        if expected == 421:
            assert code(answer) == "host-refused"


async def test_http_1_0_is_answered_and_closed(server: Listening) -> None:
    connection = await server.connect()
    await connection.send(b"GET /livez HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n")
    assert (await connection.answer()).status == 200
    assert await connection.is_closed()


async def keyed(connection: Connection, key: bytes) -> Answer:
    line = (b"Idempotency-Key: " + key).decode("latin-1")
    return await connection.ask("POST", "/jobs", line, body=CREATE)


async def test_a_key_is_bytes(server: Listening) -> None:
    connection = await server.connect()
    ids: set[int] = set()
    for key in (b"k", "schlüssel".encode(), "é".encode() * 100, b"!#$%&'*+-.^_`|~ (),/:;<=>?@[]{}"):
        made = await keyed(connection, key)
        assert made.status == 201
        ids.add(made.json()["id"])
        for same in (key, b"  " + key + b"\t "):  # white space around a value is no part of it
            answer = await keyed(connection, same)
            assert (answer.status, answer.json()["id"]) == (200, made.json()["id"])
    assert len(ids) == 4
    for key in (b"", b"k" * 201, "é".encode() * 101, b"\xff", b"a\xc3"):
        assert code(await keyed(connection, key)) == "validation-error"


async def test_a_line_break_in_a_header_makes_another_which_is_refused_for_what_it_is(
    server: Listening,
) -> None:
    before = server.world.database.everything()
    connection = await server.connect()
    assert code(await keyed(connection, b"a\r\nX-Forwarded-For: 1")) == "not-local"
    assert server.world.database.everything() == before


async def test_what_is_no_http_is_refused_and_disturbs_nobody(server: Listening) -> None:
    kept = await server.connect()
    assert (await kept.ask("GET", "/livez")).status == 200
    for junk in (
        b"\x16\x03\x01\x02\x00\x01\x00",  # somebody speaks TLS
        b"GET\r\n\r\n",
        b"GET /livez HTTP/9.9\r\nHost: 127.0.0.1\r\n\r\n",
        b"POST /jobs HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: -1\r\n\r\n",
        b"POST /jobs HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: x\r\n\r\n",
        head("POST", "/jobs", CHUNKED) + b"zz\r\n",
        b"GET /\xff HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    ):
        connection = await server.connect()
        await connection.send(junk)
        answer = await connection.answer()
        assert 400 <= answer.status < 500, junk
    assert (await kept.ask("GET", "/livez")).status == 200


async def test_a_path_is_decoded_once(server: Listening) -> None:
    body = b'{"paused": true}'
    for path, name in (("a%20b", "a b"), ("a%2520b", "a%20b"), ("%C3%A9", "é"), ("a+b", "a+b")):
        answer = await server.ask("PATCH", f"/queues/{path}", body=body)
        assert answer.json()["name"] == name
