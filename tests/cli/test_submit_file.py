"""`orc submit --file`: many jobs, in calls that find what was made when they are repeated."""

import io
import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import IO, Any

import pytest
from rich.console import Console

from compute_orchestrator.cli import submit_file
from compute_orchestrator.cli.submit_file import (
    MOST_BYTES,
    Batch,
    Line,
    SubmitView,
    Survey,
    chunks,
    look_through,
)
from tests.api.calls import Api
from tests.cli.orc import Orc, documents, done, refused
from tests.conftest import World


@pytest.fixture(autouse=True)
def small_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of a few lines take several calls."""
    monkeypatch.setattr(submit_file, "MOST_JOBS", 3)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write(tmp_path / "jobs.jsonl", [{"name": "a", "payload": n} for n in range(8)])


def write(path: Path, jobs: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(job) + "\n" for job in jobs))
    return path


def read(file: Path) -> str:
    return file.read_text()


def rewrite(file: Path, text: str) -> None:
    file.write_text(text)


async def payloads(api: Api) -> list[Any]:
    jobs = await api.jobs(include="payload", order="oldest", limit=500)
    return [job["payload"] for job in jobs]


async def test_each_line_becomes_a_job_in_order(orc: Orc, api: Api, file: Path) -> None:
    result = await orc("submit", "--file", str(file))
    assert done(result) == "8 jobs made\n"
    assert result.stderr.splitlines() == ["3 of 8 jobs", "6 of 8 jobs", "8 of 8 jobs"]
    assert await payloads(api) == list(range(8))


async def test_the_same_file_again_makes_nothing(
    orc: Orc, world: World, api: Api, file: Path
) -> None:
    (first,) = documents(await orc("submit", "--file", str(file), "--json"))
    assert (first["jobs"], first["made"], first["already_there"]) == (8, 8, 0)
    world.clock.move(1)
    result = await orc("submit", "--file", str(file), "--json")
    (again,) = documents(result)
    assert result.stderr == ""
    assert again == first | {"made": 0, "already_there": 8}
    assert first["ids"] == [job["id"] for job in await api.jobs(order="oldest")]
    other_name = await orc("submit", "--file", str(file), "--batch-name", "once more")
    assert done(other_name) == "8 jobs made\n"


async def test_a_file_may_come_from_standard_input(orc: Orc, api: Api, file: Path) -> None:
    done(await orc("submit", "--file", "-", stdin=read(file)))
    done(await orc("submit", "--file", str(file)))
    assert await payloads(api) == list(range(8))


async def test_a_line_may_say_all_that_a_create_may(orc: Orc, api: Api, tmp_path: Path) -> None:
    job: dict[str, Any] = {
        "name": "a",
        "queue": "q",
        "payload": {"x": [1.5]},
        "priority": 3,
        "max_retries": 1,
        "lease_seconds": 5.0,
        "timeout_seconds": 6.0,
        "run_at": "2030-01-31T12:00:00.000000Z",
        "tags": ["t"],
        "retry": {"base_seconds": 2.0, "factor": 3.0, "max_seconds": 4.0, "jitter": 0.0},
    }
    done(await orc("submit", "--file", str(write(tmp_path / "one", [job]))))
    (listed,) = await api.jobs()
    assert job.items() <= (await api.get(listed)).items()


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "line 7: Expecting property name"),
        ('{"name": "a", "payload": NaN}', "line 7: NaN is no number of JSON"),
        ('{"name": "a", "payload": 1e999}', "line 7: 1e999 is no number of JSON"),
        ("[]", "line 7: it is no JSON object"),
        ('{"payload": 1}', "line 7: it has no name"),
        ('{"name": "a", "queu": "q"}', "line 7: there is no field 'queu'"),
        ('{"name": "a", "run_at": "2030-01-31"}', "line 7: '2030-01-31' has no offset"),
    ],
)
async def test_a_line_that_is_no_job_stops_before_anything_is_made(
    orc: Orc, api: Api, file: Path, line: str, said: str
) -> None:
    lines = read(file).splitlines()
    rewrite(file, "\n".join([*lines[:5], "", line]))
    sentence = refused(await orc("submit", "--file", str(file)), 2)
    assert sentence.startswith(said)
    assert sentence.endswith("; nothing was made")
    assert await payloads(api) == []


async def test_after_a_line_that_the_server_refuses_the_mended_file_goes_on(
    orc: Orc, world: World, api: Api, file: Path
) -> None:
    good = read(file)
    rewrite(file, good.replace('"payload": 4', '"payload": 4, "queue": "a/b"'))
    result = await orc("submit", "--file", str(file))
    assert result.exit_code == 2
    sentence = result.stderr.splitlines()[-1]
    assert sentence.startswith("orc: line 5: queue: must not have a slash, nor be . or ..; ")
    assert "; 3 of 8 jobs are made. To go on: orc submit --file" in sentence
    name = sentence.split()[-1]
    rewrite(file, good)
    world.clock.move(1)
    mended = await orc("submit", "--file", str(file), "--batch-name", name)
    assert done(mended) == "5 jobs made, 3 were there already\n"
    assert await payloads(api) == list(range(8))


async def test_every_line_that_the_server_refuses_is_named(orc: Orc, file: Path) -> None:
    rewrite(file, '{"name": "a", "queue": "a/b"}\n\n{"name": "a", "priority": 101}\n')
    sentence = refused(await orc("submit", "--file", str(file)), 2)
    assert sentence.startswith("line 1: queue: must not have a slash")
    assert "; line 3: priority: " in sentence
    assert sentence.endswith("; nothing was made")


async def test_under_one_name_a_line_that_was_made_may_not_change(
    orc: Orc, api: Api, file: Path
) -> None:
    words = ("submit", "--file", str(file), "--batch-name", "monday")
    done(await orc(*words))
    text = read(file)
    rewrite(file, text.replace('"payload": 4', '"payload": 44'))
    result = await orc(*words)
    assert result.exit_code == 4
    assert "orc: lines 4 to 6: " in result.stderr
    assert "another --batch-name" in result.stderr
    rewrite(file, text + '{"name": "a", "payload": 8}\n')
    assert (await orc(*words)).exit_code == 4, "its last call has other lines now"
    assert await payloads(api) == list(range(8))


async def test_a_file_that_changes_while_it_is_read_ends_in_words(
    orc: Orc, api: Api, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = read(file)

    def then_write(text: str) -> None:
        def look(source: IO[bytes]) -> Survey:
            found = look_through(source)
            rewrite(file, text)
            return found

        monkeypatch.setattr(submit_file, "look_through", look)

    then_write(text + "{}\n")
    assert done(await orc("submit", "--file", str(file))) == "8 jobs made\n"
    then_write("{}\n")
    rewrite(file, text)
    sentence = refused(await orc("submit", "--file", str(file), "--batch-name", "b"), 1)
    assert sentence.startswith("the file was changed meanwhile: line 1: it has no name; ")
    assert await payloads(api) == list(range(8))


async def test_empty_lines_count_for_nothing(orc: Orc, api: Api, file: Path) -> None:
    words = ("submit", "--file", str(file), "--batch-name", "monday")
    done(await orc(*words))
    rewrite(file, "\n \n" + read(file).replace("\n", "\n\n"))
    done(await orc(*words))
    assert await payloads(api) == list(range(8))
    rewrite(file, "\n")
    assert done(await orc("submit", "--file", str(file))) == "0 jobs made\n"


async def test_a_file_that_can_not_be_read_is_wrong_usage(orc: Orc, tmp_path: Path) -> None:
    missing = tmp_path / "no such file"
    said = refused(await orc("submit", "--file", str(missing)), 2)
    assert said == f"can't read {missing}: No such file or directory"


async def test_ctrl_c_says_how_far_it_came(
    orc: Orc, api: Api, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut(_view: SubmitView, batch: Batch) -> None:
        if len(batch.ids) == 6:
            raise KeyboardInterrupt

    monkeypatch.setattr(SubmitView, "show", cut)
    sentence = refused(await orc("submit", "--file", str(file), "--batch-name", "my batch"), 130)
    assert sentence == (
        f"stopped; 6 of 8 jobs are made. To go on: orc submit --file {file} --batch-name 'my batch'"
    )
    assert await payloads(api) == list(range(6))


async def test_a_server_that_is_away_for_a_moment_stops_nothing(orc: Orc, file: Path) -> None:
    orc.bridge.refusing = 1
    result = await orc("submit", "--file", str(file))
    assert done(result) == "8 jobs made\n"
    assert result.stderr.startswith("orc: GET /stats: 503 overloaded, again in ")
    orc.bridge.refusing = 1
    looked = await orc("jobs", "list", "--ids")
    assert (len(done(looked).split()), looked.stderr) == (8, ""), "a short wait is not told"


async def test_a_repeat_makes_none_again_where_some_were_deleted_since(
    orc: Orc, api: Api, world: World, file: Path
) -> None:
    """By a retention: a call's key lives as long as one of its jobs."""
    done(await orc("submit", "--file", str(file)))
    with closing(sqlite3.connect(url_path(world))) as connection, connection:
        connection.execute("DELETE FROM jobs WHERE id IN (2, 3)")
    world.clock.move(1)
    assert done(await orc("submit", "--file", str(file))) == "0 jobs made, 8 were there already\n"
    assert await payloads(api) == [0, 3, 4, 5, 6, 7]


def url_path(world: World) -> str:
    return world.settings.database_url.removeprefix("sqlite+aiosqlite:///")


def test_a_call_takes_no_more_bytes_than_a_server_does() -> None:
    half = b"x" * (MOST_BYTES // 2)
    lines = [Line(number, half) for number in range(1, 5)] + [Line(5, 3 * half)]
    assert [[line.number for line in chunk] for chunk in chunks(lines)] == [[1, 2], [3, 4], [5]]


def shown(view: SubmitView) -> str:
    assert isinstance(view.console.file, io.StringIO)
    return view.console.file.getvalue()


def test_on_a_terminal_there_is_a_bar() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    view = SubmitView(console)
    with view:
        view.show(Batch("b", 100, already_there=20, sent=50))
    assert "50/100" in shown(view)
    assert "20 there already" in shown(view)
