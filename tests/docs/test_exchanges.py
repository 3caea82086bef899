"""Every exchange that a page shows is what the server answers, in order, to the microsecond."""

from pathlib import Path

import pytest

from compute_orchestrator.settings import Settings
from tests.conftest import World
from tests.docs.exchanges import Tokens, exchange, written
from tests.docs.pages import PAGES, PROTOCOL, blocks, short


@pytest.fixture
def settings(database_url: str) -> Settings:
    """As they are by default: a page shows what a reader's own server says."""
    return Settings(database_url=database_url)


SHOWN = {page: [block for block in blocks(page) if block.language == "http"] for page in PAGES}


@pytest.mark.parametrize("page", [page for page in PAGES if SHOWN[page]], ids=short)
async def test_the_exchanges_of_a_page_are_real(page: Path, world: World) -> None:
    tokens = Tokens()
    wrong: list[str] = []
    for block in SHOWN[page]:
        await world.pass_time(float(block.note("after") or 0))
        request, answer = exchange(block)
        method, target, _ = request.start.split()
        body = tokens.translate(request.body).encode() if request.body else None
        headers = {"Content-Type": "application/json"} if body else {}
        came = await world.http.request(
            method, target, content=body, headers={**headers, **request.headers}
        )
        found = tokens.differences(int(answer.start.split()[1]), came.status_code, "status")
        found += tokens.differences(
            dict(answer.headers), {name: came.headers.get(name) for name in answer.headers}
        )
        shown = written(answer.body) if answer.body else None
        found += tokens.differences(shown, came.json() if came.content else None)
        wrong += [f"{short(page)}:{block.line}: {line}" for line in found]
    assert wrong == []


def test_the_protocol_shows_exchanges() -> None:
    assert len(SHOWN[PROTOCOL]) > 10
