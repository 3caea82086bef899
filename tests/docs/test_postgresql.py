"""A reader who does what the page of operations says of PostgreSQL sees what it says."""

import asyncio
import os
import re
import sys
from collections.abc import Generator
from pathlib import Path

import pytest
from sqlalchemy import make_url

from tests.docs.exchanges import Tokens, written
from tests.docs.pages import DOCS, Block, blocks
from tests.postgres import Postgres, running_postgres
from tests.promises.calls import create, get, ok
from tests.promises.servers import http_client, running_server

pytestmark = [pytest.mark.process, pytest.mark.slow, pytest.mark.timeout(120)]

OPERATIONS = DOCS / "operations.md"
NAME = f"orc_docs_{os.getpid()}"
"""Instead of the page's `orc`: the role and the database may be there already."""


@pytest.fixture
def postgres() -> Generator[Postgres]:
    with running_postgres() as server:
        yield server
        server.drop(server.url_of(NAME))
        server.command(f"DROP ROLE IF EXISTS {NAME}")


def shown() -> dict[str, Block]:
    """The first block of each language below the heading."""
    text = OPERATIONS.read_text()
    heading = text.count("\n", 0, text.index("\n### Set it up\n"))
    below = [block for block in blocks(OPERATIONS) if block.line > heading]
    return {block.language: block for block in reversed(below)}


async def orc(words: str, url: str) -> tuple[int | None, str]:
    """The exit code of a command, and what it wrote to standard error."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "compute_orchestrator.cli.app", *words.split()),
        env=os.environ | {"ORC_DATABASE_URL": url},
        stderr=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.DEVNULL,
    )
    _, said = await process.communicate()
    return process.returncode, said.decode()


async def test_several_servers_are_set_up_as_the_page_says(
    postgres: Postgres, tmp_path: Path
) -> None:
    page = shown()
    for command in page["sql"].text.strip().splitlines():
        await asyncio.to_thread(postgres.command, command.replace(" orc ", f" {NAME} "))
    (written_url,) = re.findall(
        r"^export ORC_DATABASE_URL=(.+)$", page["console"].text, re.MULTILINE
    )
    url = make_url(postgres.url_of(NAME)).set(
        username=NAME, password=make_url(written_url).password
    )
    database_url = url.render_as_string(hide_password=False)

    assert "\norc db upgrade\n" in page["console"].text
    assert await orc("serve --port 0", database_url) == (1, page["text"].text)
    assert (await orc("db upgrade", database_url))[0] == 0
    async with (
        running_server(tmp_path, database_url=database_url) as first,
        running_server(tmp_path, database_url=database_url) as second,
        http_client(first.url) as http,
        http_client(second.url) as other,
    ):
        for one in (http, other):
            ready = ok(await one.get("/readyz"))
            # Here the server for the tests does not sync.
            wanted = written(page["json"].text) | {"synchronous": ready["synchronous"]}
            assert Tokens().differences(wanted, ready) == []
        job = await create(http)
        assert await get(other, job["id"]) == job
