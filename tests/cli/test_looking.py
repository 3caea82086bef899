"""`orc queues`, `workers`, `stats`, `reap` and one picture of `top`, as JSON and for people."""

import pytest
from rich.console import Console

from compute_orchestrator.cli.top_picture import Look, Screen, look
from compute_orchestrator.client.errors import ConnectFailed
from tests.api.calls import Api, ok
from tests.cli.orc import Orc, documents, done, refused
from tests.conftest import URL, World


async def test_queues_are_listed_paused_and_resumed(orc: Orc, api: Api) -> None:
    for queue in ("images", "mails"):
        await api.create(queue=queue)
    assert done(await orc("queues", "pause", "images")) == "queue images is paused, 1 jobs wait\n"
    table = [
        "QUEUE   QUEUED  DELAYED  RUNNING  PAUSED",
        "images  1       0        0        paused",
        "mails   1       0        0        -",
    ]
    assert done(await orc("queues")).splitlines() == table
    assert done(await orc("queues", "list")).splitlines() == table
    (resumed,) = documents(await orc("queues", "resume", "images", "--json"))
    listed = ok(await api.http.get("/queues"))["queues"]
    assert resumed == listed[0]
    assert not resumed["paused"]
    assert documents(await orc("queues", "--json")) == listed
    assert "flags come after the command" in refused(await orc("queues", "--json", "list"), 2)
    assert "slash" in refused(await orc("queues", "pause", "a/b"), 2)


async def test_workers_are_shown_with_what_they_say_of_themselves(
    orc: Orc, world: World, api: Api
) -> None:
    await api.create()
    ok(
        await api.http.post(
            "/workers/host-1/sync",
            json={"about": {"host": "host", "pid": 7}, "claim": {"limit": 1}},
        )
    )
    await world.services.workers.write_sightings_once()
    assert (
        documents(await orc("workers", "--json")) == ok(await api.http.get("/workers"))["workers"]
    )
    assert done(await orc("workers")).splitlines() == [
        "WORKER  RUNNING  LAST SEEN             ABOUT",
        "host-1  1        2026-11-18 11:06:40Z  host host, pid 7",
    ]


async def test_stats_are_shown(orc: Orc, world: World, api: Api) -> None:
    await api.create(queue="q")
    await world.pass_time(90)
    assert documents(await orc("stats", "--json")) == [ok(await api.http.get("/stats"))]
    lines = done(await orc("stats")).splitlines()
    assert lines[:2] == [
        "QUEUE  QUEUED  DELAYED  RUNNING  OLDEST WAITS",
        "q      1       0        0        1 min 30 s",
    ]
    assert "created      1" in lines
    assert "last minute  0 created, 0 finished" in lines


async def test_the_reaper_is_run_by_hand(orc: Orc, world: World, api: Api) -> None:
    await api.started(lease_seconds=10)
    await world.pass_time(11)  # the first pass gives the living a whole lease to report
    world.clock.move(2)
    (reaped,) = documents(await orc("reap", "--json"))
    assert reaped == {"requeued": 1, "exhausted": 0, "cancelled": 0, "pruned": 0}
    assert done(await orc("reap")) == "0 requeued, 0 exhausted, 0 cancelled, 0 pruned\n"


async def test_top_without_a_terminal_is_one_picture(orc: Orc, world: World, api: Api) -> None:
    lease = await api.started(name="resize", queue="images")
    await api.report(lease, "failed", retryable=False, error={"message": "[red]no\x1b[2J"})
    await api.create(queue="images")
    await api.pause("images")
    world.clock.move(3)
    (found,) = documents(await orc("top", "--json"))
    assert found["stats"] == ok(await api.http.get("/stats"))
    assert [job["id"] for job in found["ended"]] == [lease["id"]]
    lines = done(await orc("top")).splitlines()
    assert lines[0] == f"orc top  {URL}  2026-11-18 11:06:43Z"
    rows = [line.split() for line in lines]
    assert ["images", "1", "0", "0", "3.0", "s", "paused"] in rows
    assert [str(lease["id"]), "failed", "resize", "images", "1", "3.0", "s", "[red]no�[2J"] in rows
    assert done(await orc("top", "--once")).splitlines() == lines


def drawn(screen: Screen) -> str:
    console = Console(width=160, record=True, quiet=True)
    with console.capture() as captured:
        console.quiet = False
        console.print(screen.picture())
    return captured.get()


async def test_top_keeps_its_picture_while_the_server_is_away_and_shows_rates(
    orc: Orc, world: World, api: Api
) -> None:
    screen = Screen("http://user:secret@127.0.0.1:8000/?token=secret")

    async def see() -> Look:
        async with orc.open_client("", patience_seconds=0) as client:
            return await look(client)

    screen.take(await see())
    assert "(last minute)" in drawn(screen)
    for _ in range(30):
        await api.create()
    await world.pass_time(10)
    screen.take(await see())
    assert "3.0 created/s, 0.0 finished/s (last 10.0 s)" in drawn(screen)
    screen.miss(ConnectFailed("GET /stats: refused"))
    away = drawn(screen)
    assert "no news for 0.0 s: the server can't be reached: GET /stats: refused" in away
    assert "3.0 created/s" in away
    assert "secret" not in away
    screen.take(await see())
    assert "no news" not in drawn(screen)


@pytest.mark.parametrize("words", [["top", "--refresh-seconds", "0"], ["jobs"], ["nothing"]])
async def test_what_can_not_be_meant_is_wrong_usage(orc: Orc, words: list[str]) -> None:
    assert (await orc(*words)).exit_code == 2
