"""`orc` on a server in this process."""

import pytest

from compute_orchestrator.cli import connection
from tests.api.calls import Api
from tests.cli.orc import Orc
from tests.conftest import World


@pytest.fixture
async def orc(world: World, monkeypatch: pytest.MonkeyPatch) -> Orc:
    orc = Orc(world)
    monkeypatch.delenv("ORC_URL", raising=False)
    monkeypatch.setattr(connection, "open_client", orc.open_client)
    return orc


@pytest.fixture
def api(world: World) -> Api:
    return Api(world.http)
