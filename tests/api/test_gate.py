"""Who may call: peers, forwarded headers, Host, Origin (section 8)."""

import httpx
import pytest

from tests.api.calls import Api, ok, problem
from tests.api.conftest import MakeWorld
from tests.conftest import URL, World
from tests.stores import only_sqlite

new_store = only_sqlite

Headers = list[tuple[str, str]]


async def ask(
    world: World, *headers: tuple[str, str], peer: str | None = "127.0.0.1", path: str = "/livez"
) -> httpx.Response:
    """GET from this peer; the Host is loopback unless the headers name another."""
    transport = httpx.ASGITransport(
        world.app,
        client=(peer, 1) if peer is not None else None,  # pyright: ignore[reportArgumentType] - a Unix socket has no peer
    )
    named = {name.lower() for name, _ in headers}
    given = [*headers, *([] if "host" in named else [("Host", "127.0.0.1:8000")])]
    async with httpx.AsyncClient(transport=transport, base_url=URL) as http:
        return await http.get(path, headers=given)


LOCAL_PEERS = ["127.0.0.1", "127.8.9.10", "::1", "::ffff:127.0.0.1", None]
FOREIGN_PEERS = [
    "10.0.0.5", "192.168.1.1", "8.8.8.8", "0.0.0.0", "169.254.1.1",  # noqa: S104 - a peer, not a bind
    "::", "fe80::1", "2001:db8::1", "::ffff:10.0.0.5", "testclient", "",
]  # fmt: skip
FORWARDED: Headers = [
    ("Forwarded", "for=127.0.0.1"),
    ("X-Forwarded-For", "127.0.0.1"),
    ("X-Forwarded-Host", "127.0.0.1"),
    ("X-Forwarded-Proto", "https"),
    ("x-forwarded-anything", ""),
    ("X-Real-IP", "127.0.0.1"),
]


async def test_only_this_machine_may_call(world: World) -> None:
    for peer in LOCAL_PEERS:
        ok(await ask(world, peer=peer))
    for peer in FOREIGN_PEERS:
        problem(await ask(world, peer=peer), 403, "not-local")


async def test_nor_through_a_proxy(world: World) -> None:
    for header in FORWARDED:
        problem(await ask(world, header), 403, "not-local")


async def test_no_header_makes_a_foreign_peer_local(world: World) -> None:
    for header in FORWARDED:
        problem(await ask(world, header, peer="10.0.0.5"), 403, "not-local")


async def test_an_open_server_lets_any_peer_in(make_world: MakeWorld) -> None:
    world = await make_world(insecure_open=True)
    for peer in [*LOCAL_PEERS, *FOREIGN_PEERS]:
        ok(await ask(world, peer=peer))
    for header in FORWARDED:
        ok(await ask(world, header, peer="10.0.0.5"))
    # But no browser, in no mode.
    problem(await ask(world, ("Host", "evil.example"), peer="10.0.0.5"), 421, "host-refused")
    page = ("Origin", "http://evil.example")
    problem(await ask(world, page, peer="10.0.0.5"), 403, "origin-refused")
    problem(await ask(world, ("Sec-Fetch-Site", "cross-site")), 403, "origin-refused")


LOOPBACK_HOSTS = [
    "127.0.0.1", "127.0.0.1:8000", "127.0.0.1:1", "127.9.9.9", "localhost", "localhost:9",
    "LocalHost:8000", "[::1]", "[::1]:8000", "[::ffff:127.0.0.1]",
]  # fmt: skip
OTHER_HOSTS = [
    "evil.example", "evil.example:8000", "127.0.0.1.evil.example", "localhost.evil.example",
    "evil.example#localhost", "localhost@evil.example", "evil.example/localhost", "10.0.0.5",
    "0.0.0.0", "[::]", "[2001:db8::1]:8000", "2130706433", "localhost, evil.example",  # noqa: S104 - a Host
    "127.0.0.1 evil.example", "evil.example:127.0.0.1", "[::1", "::1", "", " ", ":8000", "localhos",
]  # fmt: skip


async def test_the_host_is_loopback_whatever_its_port(world: World) -> None:
    for host in LOOPBACK_HOSTS:
        ok(await ask(world, ("Host", host)))
    for host in OTHER_HOSTS:
        problem(await ask(world, ("Host", host)), 421, "host-refused")


async def test_two_hosts_are_none(world: World) -> None:
    two = [("Host", "127.0.0.1"), ("Host", "evil.example")]
    problem(await ask(world, *two), 421, "host-refused")
    problem(await ask(world, *reversed(two)), 421, "host-refused")


async def test_allowed_hosts_are_names_besides_loopback(make_world: MakeWorld) -> None:
    world = await make_world(allowed_hosts="orc.internal, Jobs.Example")
    for host in ("orc.internal", "ORC.internal:80", "jobs.example:9999", *LOOPBACK_HOSTS):
        ok(await ask(world, ("Host", host)))
    for host in ("sub.orc.internal", "orc.internal.evil.example", "internal", *OTHER_HOSTS):
        problem(await ask(world, ("Host", host)), 421, "host-refused")
    own = [("Host", "orc.internal:8000"), ("Origin", "http://orc.internal:8000")]
    ok(await ask(world, *own))
    page = [("Host", "orc.internal:8000"), ("Origin", "http://evil.example")]
    problem(await ask(world, *page), 403, "origin-refused")


OWN = [
    ("127.0.0.1:8000", "http://127.0.0.1:8000"),
    ("localhost:8000", "http://localhost:8000"),
    ("[::1]:8000", "http://[::1]:8000"),
    ("127.0.0.1", "http://127.0.0.1"),
    ("127.0.0.1:80", "http://127.0.0.1"),
]
FOREIGN = [
    ("127.0.0.1:8000", "http://evil.example"),
    ("127.0.0.1:8000", "http://evil.example:8000"),
    ("127.0.0.1:8000", "https://evil.example"),
    ("127.0.0.1:8000", "http://127.0.0.1:3000"),  # another server of this machine
    ("127.0.0.1:8000", "http://localhost:3000"),
    ("127.0.0.1:8000", "http://localhost"),
    ("127.0.0.1:8000", "http://127.0.0.1:8000.evil.example"),
    ("127.0.0.1:8000", "http://127.0.0.1.evil.example:8000"),
    ("127.0.0.1:8000", "null"),
    ("127.0.0.1:8000", ""),
    ("127.0.0.1:8000", "127.0.0.1:8000"),
    ("127.0.0.1:8000", "file://"),
    ("127.0.0.1:8000", "chrome-extension://abcdef"),
    ("127.0.0.1:8000", "http://127.0.0.1:x"),
]


async def test_pages_of_elsewhere_may_not_call(world: World) -> None:
    for host, origin in OWN:
        ok(await ask(world, ("Host", host), ("Origin", origin)))
    for host, origin in FOREIGN:
        answer = await ask(world, ("Host", host), ("Origin", origin))
        problem(answer, 403, "origin-refused")


async def test_what_the_browser_calls_cross_site_may_not(world: World) -> None:
    problem(await ask(world, ("Sec-Fetch-Site", "cross-site")), 403, "origin-refused")
    for kind in ("same-origin", "none"):
        ok(await ask(world, ("Sec-Fetch-Site", kind)))
    own = [("Origin", "http://127.0.0.1:8000"), ("Sec-Fetch-Site", "cross-site")]
    problem(await ask(world, *own), 403, "origin-refused")


async def test_the_gate_stands_before_every_path_and_method(world: World) -> None:
    for path in ("/jobs", "/jobs/1", "/docs", "/openapi.json", "/nothing", "/docs/static/x.js"):
        problem(await ask(world, peer="10.0.0.5", path=path), 403, "not-local")
        problem(await ask(world, ("Host", "evil.example"), path=path), 421, "host-refused")
        problem(await ask(world, ("Origin", "http://e.example"), path=path), 403, "origin-refused")


@pytest.mark.parametrize(
    "headers",
    [{"Origin": "http://evil.example"}, {"Sec-Fetch-Site": "cross-site"}, {"Host": "evil.example"}],
)
async def test_what_is_refused_writes_nothing(
    world: World, api: Api, headers: dict[str, str]
) -> None:
    job = await api.create()
    before = world.database.everything()
    for path in ("/jobs", "/jobs/claim", f"/jobs/{job['id']}/cancel", "/jobs/reap"):
        body = {"name": "a"} if path == "/jobs" else {"worker_id": "w"}
        answer = await world.http.post(path, json=body, headers=headers)
        assert answer.status_code in (403, 421)
        # A page can't read the answer either.
        assert not any(name.startswith("access-control") for name in answer.headers)
    assert world.database.everything() == before


async def test_a_preflight_is_refused(world: World) -> None:
    headers = {
        "Origin": "http://evil.example",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "content-type",
    }
    answer = await world.http.options("/jobs", headers=headers)
    problem(answer, 403, "origin-refused")
    assert not any(name.startswith("access-control") for name in answer.headers)
