"""A copy of a whole store: what is in the target is what was in the source, between every two kinds
of store; it is all there or nothing is, and nobody else has either store meanwhile.
"""

import asyncio
import os
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

import asyncpg
import pytest

from compute_orchestrator.db import sides
from compute_orchestrator.db.copy import CannotCopy, SameStore, copy_store
from compute_orchestrator.db.migrate import current_revision, head_revision
from compute_orchestrator.db.owner import OwnerLock
from compute_orchestrator.db.postgresql import SESSION_SETTINGS
from compute_orchestrator.domain.errors import SchemaUnknown, StoreOwned
from compute_orchestrator.domain.lifecycle import Status
from tests.clocks import ManualClock
from tests.conftest import World, running_world, settings_for
from tests.databases import TABLES, Database
from tests.postgres import Postgres
from tests.promises.calls import Job, beat, claim, create, ok, operate, report
from tests.stores import STORES, sqlite_url

EXTREMES: Final[dict[str, Any]] = {
    "largest": 2**63 - 1,
    "smallest": -(2**63),
    "huge": 1e308,
    "tiny": 5e-324,
    "minus zero": -0.0,
    "empty": ["", {}, [], None],
    "text": "Größe 🦊 \u2028 \x7f \\ \" ' %s $1 :now ?",
}
LONG_AGO: Final = "0001-01-01T00:00:00Z"
AFTER_ALL: Final = "9999-12-31T23:59:59.999999Z"
DAY_SECONDS: Final = 86_400

KINDS: Final = sorted(STORES)
PAIRS: Final = [
    pytest.param((one, other), id=f"{one}-to-{other}") for one in KINDS for other in KINDS
]

# What the next ids rest on. SQLite counts those of two tables, PostgreSQL those of every one.
COUNTERS: Final = {
    "sqlite": "SELECT name, seq FROM sqlite_sequence ORDER BY name",
    "postgresql": """
        SELECT 'jobs', last_value - CAST(NOT is_called AS integer) FROM jobs_id_seq UNION ALL
        SELECT 'job_events', last_value - CAST(NOT is_called AS integer) FROM job_events_id_seq
    """,
}


class Listening:
    """Hears how far a copy is, and may do something about it."""

    def __init__(self) -> None:
        self.heard: list[str] = []
        self.steps = 0
        self.on_start: Callable[[], object] = lambda: None
        self.on_checked: Callable[[], object] = lambda: None

    def start(self, steps: int) -> None:
        self.steps = steps
        self.on_start()

    def step(self, table: str, steps: int) -> None:
        self.heard.append(table)
        self.steps -= steps

    def checked(self) -> None:
        self.on_checked()


class Pair(NamedTuple):
    source: Database
    target: Database

    async def copy(self, *, live: bool = False, listener: Listening | None = None) -> Any:
        listener = listener or Listening()
        return await copy_store(self.source.url, self.target.url, live=live, listener=listener)


@pytest.fixture(params=PAIRS)
def pair(request: pytest.FixtureRequest) -> Pair:
    """Two empty stores, of every two kinds."""
    return Pair(*(Database(STORES[kind](request)) for kind in request.param))


@pytest.fixture(params=[(KINDS[0], KINDS[1]), (KINDS[1], KINDS[0])], ids=["there", "back"])
def across(request: pytest.FixtureRequest) -> Pair:
    """Of two kinds: where what is tested depends on the one side or on the other."""
    return Pair(*(Database(STORES[kind](request)) for kind in request.param))


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that is there will not leave: it need not be waited for."""
    monkeypatch.setattr(sides, "LOOKS", 1)


@asynccontextmanager
async def serving(database: Database, clock: ManualClock) -> AsyncGenerator[World]:
    async with running_world(settings_for(database.url), clock) as world:
        yield world


async def claimed(world: World, queue: str, **wishes: Any) -> Job:
    job = await claim(world.http, queues=[queue], **wishes)
    assert job is not None
    return job


async def live_a_little(world: World) -> None:
    """Until there is every kind of row in the store."""
    http = world.http

    async def ended(queue: str, status: str, *, times: int = 1, **more: Any) -> None:
        for _ in range(times):
            ok(await report(http, await claimed(world, queue), status, **more))

    await create(http, queue="lost", max_retries=5)
    await claimed(world, "lost", lease_seconds=10)
    await create(http, queue="done", payload=EXTREMES)
    await ended("done", "succeeded", result=EXTREMES)
    await world.pass_time(14)
    world.clock.move(70)
    await world.services.stats.fold_once()  # what comes from here on is not folded yet

    retry = {"base_seconds": 0, "max_seconds": 0.1, "factor": 1 / 3}
    await create(http, queue="spent", max_retries=1, retry=retry)
    await ended("spent", "failed", times=2, error={"type": "Größe", "message": ""})
    await create(http, queue="failed", max_retries=0)
    await ended("failed", "failed")
    await create(http, queue="handed back", run_at=LONG_AGO)
    await ended("handed back", "queued", run_in_seconds=5)
    await operate(http, (await create(http, queue="cancelled"))["id"], "cancel")

    await create(http, queue="running", tags=["größe 🦊", "a b"], lease_seconds=60)
    lease = await claimed(world, "running", request_id="again")
    ok(await beat(http, lease, progress=0.1, checkpoint=EXTREMES))
    await create(http, queue="to be cancelled", timeout_seconds=3_600)
    await operate(http, (await claimed(world, "to be cancelled"))["id"], "cancel")

    await create(http, queue="größe 🦊", payload=None, priority=-100, tags=["a b"])
    await create(http, queue="delayed", run_at=AFTER_ALL, payload="", priority=100)
    body = {"name": "work", "payload": False}
    keyed = await http.post("/jobs", json=body, headers={"Idempotency-Key": "once"})
    assert keyed.is_success, keyed.text
    ok(await http.patch("/queues/paused", json={"paused": True}))
    await world.services.workers.write_sightings_once()
    await create(http, queue="deleted")


async def filled(database: Database, clock: ManualClock) -> int:
    """The largest id that was given to a job; that job is not there any more."""
    async with serving(database, clock) as world:
        await live_a_little(world)
    largest = database.value("SELECT max(id) FROM jobs")
    for table, column in (("jobs", "id"), ("job_events", "job_id")):
        database.rows(f"DELETE FROM {table} WHERE {column} = ?", largest)  # noqa: S608 - our own
    # Only one of the two can keep it.
    database.rows("UPDATE jobs SET retry_jitter = CAST('-0' AS double precision) WHERE id = 1")
    return largest


def counters(database: Database) -> list[Any]:
    return database.rows(COUNTERS["sqlite" if database.is_file else "postgresql"])


def nothing() -> dict[str, list[Any]]:
    return {table: [] for table in TABLES}


async def test_everything_arrives_as_it_was(pair: Pair, clock: ManualClock) -> None:
    largest = await filled(pair.source, clock)
    before = pair.source.everything()
    assert {job["status"] for job in before["jobs"]} == {*Status}
    assert min(map(len, before.values())) > 0, "a kind of row is missing"

    listener = Listening()
    copied = await pair.copy(listener=listener)
    assert pair.target.everything() == before
    assert pair.source.everything() == before
    assert copied == {table: len(rows) for table, rows in before.items()}
    assert set(listener.heard) == {*TABLES}
    assert listener.steps == 0

    async with serving(pair.target, clock) as world:
        assert (await create(world.http))["id"] == largest + 1


async def test_json_arrives_byte_for_byte(pair: Pair) -> None:
    odd = '{"b" :1,  "a":1.0,"a":1E400,"\\u00e9":"\\ud83e\\udd8a é 🦊"\n}'
    with_server = settings_for(pair.source.url)
    async with running_world(with_server, ManualClock()) as world:
        await create(world.http)
        absent = (await create(world.http))["id"]
    pair.source.rows("UPDATE jobs SET payload = ? WHERE id < ?", odd, absent)
    await pair.copy()
    assert [row["payload"] for row in pair.target.rows("SELECT payload FROM jobs ORDER BY id")] == [
        odd,
        None,
    ]


@pytest.mark.parametrize("kinds", [KINDS, KINDS[::-1]], ids=lambda kinds: f"from-{kinds[0]}")
async def test_there_and_back_again_nothing_has_changed(
    request: pytest.FixtureRequest, clock: ManualClock, kinds: list[str]
) -> None:
    first, middle, last = (Database(STORES[kind](request)) for kind in (*kinds, kinds[0]))
    await filled(first, clock)
    await Pair(first, middle).copy()
    await Pair(middle, last).copy()
    assert last.everything() == first.everything()
    assert counters(last) == counters(first)


async def test_an_empty_store_can_be_copied_too(pair: Pair) -> None:
    assert sum((await pair.copy()).values()) == 0
    assert pair.target.everything() == nothing()


async def test_the_numbers_are_the_same_before_and_after(pair: Pair, clock: ManualClock) -> None:
    async with serving(pair.source, clock) as world:
        await live_a_little(world)
        before = ok(await world.http.get("/stats"))
    await pair.copy()
    async with serving(pair.target, clock) as world:
        assert ok(await world.http.get("/stats")) == before


async def test_a_worker_reports_to_the_target_what_it_claimed_from_the_source(
    pair: Pair, clock: ManualClock
) -> None:
    """Promise 9: the move is a gap, and whoever lives has the time of one lease after it."""
    async with serving(pair.source, clock) as world:
        for _ in range(2):
            await create(world.http)
        living, dead = [await claimed(world, "default", lease_seconds=60) for _ in range(2)]
        await world.pass_time(4)
    await pair.copy()
    clock.move(DAY_SECONDS)  # both leases have run out for long
    async with serving(pair.target, clock) as world:
        assert (await world.pass_time(50)).taken == 0
        assert ok(await report(world.http, living, "succeeded"))["status"] == "succeeded"
        assert (await world.pass_time(14)).taken == 1
        lost = await report(world.http, dead, "succeeded")
        assert lost.json()["code"] == "lease-lost"


# --- all or nothing


async def test_a_copy_that_was_cut_off_leaves_nothing_and_can_be_made_again(
    pair: Pair, clock: ManualClock
) -> None:
    largest = await filled(pair.source, clock)
    listener = Listening()

    def fail() -> None:
        raise ZeroDivisionError

    listener.on_checked = fail  # as late as can be
    untouched = counters(pair.target)
    with pytest.raises(ZeroDivisionError):
        await pair.copy(listener=listener)
    assert {*listener.heard} == {*TABLES}
    assert pair.target.everything() == nothing()
    assert counters(pair.target) == untouched
    async with serving(pair.target, clock) as world:
        assert await jobs_of(world) == []

    await pair.copy()
    assert pair.target.everything() == pair.source.everything()
    async with serving(pair.target, clock) as world:
        assert (await create(world.http))["id"] == largest + 1


async def jobs_of(world: World) -> list[Job]:
    return ok(await world.http.get("/jobs"))["jobs"]


def changing_a_value(target: Database) -> str:
    """How a trigger is written that keeps something else than was given."""
    if target.is_file:
        return "UPDATE job_events SET actor = 'nobody' WHERE id = new.id"
    return "new.actor := 'nobody'; RETURN new"


def changing_a_moment(target: Database) -> str:
    if target.is_file:
        return "UPDATE job_events SET at = at - 1 WHERE id = new.id"
    return "new.at := new.at - interval '1 microsecond'; RETURN new"


def dropping_a_row(target: Database) -> str:
    return "DELETE FROM job_events WHERE id = new.id" if target.is_file else "RETURN NULL"


@contextmanager
def planted(target: Database, fault: Callable[[Database], str]) -> Generator[None]:
    """In the target, for one event."""
    on_event = "INSERT ON job_events {} WHEN (new.id = 2)"
    with target.connected() as ask:
        if target.is_file:
            on_event = on_event.format("FOR EACH ROW")
            ask(f"CREATE TRIGGER planted AFTER {on_event} BEGIN {fault(target)}; END")
            yield
            ask("DROP TRIGGER planted")
        else:
            body = f"$$ BEGIN {fault(target)}; END $$"
            on_event = on_event.format("FOR EACH ROW")
            ask(f"CREATE FUNCTION planted() RETURNS trigger LANGUAGE plpgsql AS {body}")
            ask(f"CREATE TRIGGER planted BEFORE {on_event} EXECUTE FUNCTION planted()")
            yield
            ask("DROP FUNCTION planted CASCADE")


@pytest.mark.parametrize("fault", [changing_a_value, changing_a_moment, dropping_a_row])
async def test_a_target_that_differs_is_noticed_and_not_kept(
    across: Pair, fault: Callable[[Database], str]
) -> None:
    async with serving(across.source, ManualClock()) as world:
        for _ in range(3):
            await create(world.http)
    with (
        planted(across.target, fault),
        pytest.raises(CannotCopy, match=r"^The check failed: job_events .* Nothing was kept\.$"),
    ):
        await across.copy()
    assert across.target.everything() == nothing()


# --- the others


@pytest.mark.usefixtures("impatient")
async def test_a_server_on_the_source_is_named_and_goes_on(across: Pair) -> None:
    async with serving(across.source, ManualClock()) as world:
        with pytest.raises(CannotCopy, match=r"the source.* stop (it|them) first, or .* --live"):
            await across.copy()
        await create(world.http)
    assert across.target.everything() == nothing()


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("kind", KINDS)
async def test_a_copy_that_a_server_forbids_writes_not_even_the_schema(
    store_url: str, kind: str, tmp_path: Path, postgres: Postgres
) -> None:
    source = Database(store_url)
    with without_schema(kind, tmp_path, postgres) as target:
        async with serving(source, ManualClock()):
            with pytest.raises(CannotCopy, match="the source"):
                await Pair(source, target).copy()
        assert not is_made(target)


@pytest.mark.usefixtures("impatient")
async def test_a_server_on_the_target_is_named_and_goes_on(across: Pair) -> None:
    async with serving(across.target, ManualClock()) as world:
        for live in (False, True):
            with pytest.raises(CannotCopy, match=r"the target.* stop (it|them) first\."):
                await across.copy(live=live)
        await create(world.http)
        assert len(await jobs_of(world)) == 1


async def test_nobody_can_write_to_either_store_meanwhile(across: Pair) -> None:
    async with serving(across.source, ManualClock()) as world:
        await create(world.http)
    before = across.source.everything()
    listener = Listening()
    listener.on_start = lambda: [refuses_others(database) for database in across]
    await across.copy(listener=listener)
    assert listener.heard
    assert across.target.everything() == before


def refuses_others(database: Database) -> None:
    if database.is_file:
        with pytest.raises(StoreOwned):
            OwnerLock(database.file).acquire()
        return
    with database.connected() as ask:
        ask("SET lock_timeout = '10ms'")
        with pytest.raises(asyncpg.LockNotAvailableError):
            ask("INSERT INTO queues (name, paused) VALUES ('another', 1)")


@pytest.mark.usefixtures("impatient")
async def test_a_server_that_came_meanwhile_undoes_the_copy(across: Pair) -> None:
    """An SQLite file does not let it start; a database does."""
    shared = next(database for database in across if not database.is_file)
    listener = Listening()
    with ExitStack() as connected:

        def come() -> None:
            ask = connected.enter_context(shared.connected())
            ask(f"SET application_name = '{SESSION_SETTINGS['application_name']}'")

        listener.on_start = come
        with pytest.raises(CannotCopy, match=r"^Servers are connected to the "):
            await across.copy(listener=listener)
    assert across.target.everything() == nothing()


async def test_a_live_copy_is_of_one_moment(pair: Pair, clock: ManualClock) -> None:
    async with serving(pair.source, clock) as world:
        await create(world.http)
        before = pair.source.everything()
        listener = Listening()
        listener.on_start = lambda: (
            pair.source.rows("INSERT INTO queues (name, paused) VALUES ('later', 1)"),
            pair.source.rows("UPDATE jobs SET priority = 7"),
        )
        await pair.copy(live=True, listener=listener)
        assert pair.target.everything() == before
        assert pair.source.everything() != before
        await create(world.http)


async def test_a_copy_may_take_its_time(request: pytest.FixtureRequest) -> None:
    """A server's connections have limits for what is long."""
    async with sides.connected(STORES["postgresql"](request), "source") as side:
        for limit in ("statement_timeout", "idle_in_transaction_session_timeout"):
            assert await side.scalar(f"SELECT current_setting('{limit}')") == "0"


# --- what can't be copied


async def test_a_target_with_jobs_is_left_alone(across: Pair) -> None:
    for database in across:
        async with serving(database, ManualClock()) as world:
            await create(world.http)
    before = across.target.everything()
    with pytest.raises(CannotCopy, match=r"^The target is not empty: it has rows in \w+\. Name a "):
        await across.copy()
    assert across.target.everything() == before


async def test_a_target_that_was_only_looked_at_is_empty(across: Pair, clock: ManualClock) -> None:
    async with serving(across.source, clock) as world:
        await create(world.http)
    async with serving(across.target, clock) as world:
        assert await jobs_of(world) == []
    await across.copy()
    assert across.target.everything() == across.source.everything()


@contextmanager
def without_schema(kind: str, folder: Path, postgres: Postgres) -> Generator[Database]:
    """A file that is not there, or a database in which nothing is."""
    if kind == "sqlite":
        yield Database(sqlite_url(folder / "not" / "yet" / "there.db"))
        return
    name = f"orc_test_{os.getpid()}_bare"
    postgres.command(f"CREATE DATABASE {name}")
    url = postgres.url_of(name)
    yield Database(url)
    postgres.drop(url)


def is_made(database: Database) -> bool:
    return database.is_file and database.file.parent.exists()


@pytest.mark.parametrize("kind", KINDS)
async def test_a_target_without_a_schema_gets_it(
    store_url: str, kind: str, tmp_path: Path, postgres: Postgres
) -> None:
    source = Database(store_url)
    source.rows("INSERT INTO queues (name, paused) VALUES ('paused', 1)")
    with without_schema(kind, tmp_path, postgres) as target:
        await Pair(source, target).copy()
        assert target.everything() == source.everything()
        assert await asyncio.to_thread(current_revision, target.url) == head_revision()


@pytest.mark.parametrize("role", ["source", "target"])
async def test_a_way_through_a_pooler_is_refused(
    role: str, postgres: Postgres, tmp_path: Path
) -> None:
    """Who is connected to the database can't be seen through it."""
    plain, pooled = sqlite_url(tmp_path / "new.db"), f"{postgres.empty()}&pgbouncer=true"
    urls = (pooled, plain) if role == "source" else (plain, pooled)
    with pytest.raises(CannotCopy, match="PgBouncer"):
        await copy_store(*urls, live=False, listener=Listening())
    postgres.give_back(pooled.removesuffix("&pgbouncer=true"))


@pytest.mark.parametrize("kind", KINDS)
async def test_a_source_in_which_nothing_is_is_refused(
    store_url: str, kind: str, tmp_path: Path, postgres: Postgres
) -> None:
    with without_schema(kind, tmp_path, postgres) as source:
        with pytest.raises(CannotCopy, match=r"^The source is empty"):
            await Pair(source, Database(store_url)).copy()
        assert not is_made(source)


@pytest.mark.parametrize("role", ["source", "target"])
async def test_an_older_schema_is_refused_with_the_command(
    across: Pair, role: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    older = getattr(across, role).url

    def revision(url: str) -> str:
        return "0000" if url == older else head_revision()

    monkeypatch.setattr("compute_orchestrator.db.copy.current_revision", revision)
    with pytest.raises(CannotCopy, match=f"^The schema of the {role} is 0000, .*`orc db upgrade`"):
        await across.copy()


async def test_a_newer_schema_is_refused(across: Pair) -> None:
    across.target.rows("UPDATE alembic_version SET version_num = 'future'")
    with pytest.raises(SchemaUnknown, match="newer version"):
        await across.copy()


async def test_a_store_is_not_copied_into_itself(
    new_store: Callable[[], str], tmp_path: Path
) -> None:
    store = Database(new_store())
    if store.is_file:
        link = tmp_path / "link.db"
        link.symlink_to(store.file)
        other = sqlite_url(link)
    else:
        other = store.url.replace("postgresql://", "postgresql+asyncpg://")
    for target in (store.url, other):
        with pytest.raises(SameStore, match="the same store"):
            await Pair(store, Database(target)).copy()
