"""The checker of histories catches faults of the product: its statements are changed where a fence
stands, a short history is played on each store, and what was recorded is checked.
"""

import re
from pathlib import Path
from types import ModuleType

import pytest

from compute_orchestrator.db.sessions import Statement
from compute_orchestrator.db.statements import claim as claim_page
from compute_orchestrator.db.statements import heartbeat as heartbeat_page
from compute_orchestrator.db.statements import reap as reap_page
from compute_orchestrator.db.statements import report as report_page
from compute_orchestrator.settings import Settings
from tests.conftest import World, settings_for
from tests.promises.history import report
from tests.promises.history_checker import faults
from tests.promises.short_history import Play, living_holder, play_all, replaced_holder

FENCE = r"AND jobs\.lease_token = \w+\.lease_token"


@pytest.fixture
def settings(store_url: str) -> Settings:
    """The world is on each store in turn."""
    return settings_for(store_url)


@pytest.fixture
def play(world: World, tmp_path: Path) -> Play:
    folder = tmp_path / "history"
    folder.mkdir()
    return Play(world, folder)


class Planting:
    """Takes words out of the statements of the product."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch

    def change(self, page: ModuleType, name: str, words: str, by: str = "") -> None:
        statement: Statement = getattr(page, name)
        texts: dict[str, str] = {}
        for dialect in ("sqlite", "postgresql"):
            (text,) = statement.on(dialect)
            texts[dialect], changes = re.subn(words, by, text.text)
            assert changes > 0
        self._monkeypatch.setattr(page, name, Statement(**texts))


@pytest.fixture
def planting(monkeypatch: pytest.MonkeyPatch) -> Planting:
    return Planting(monkeypatch)


async def test_the_product_as_it_is_has_no_fault(play: Play) -> None:
    assert faults(await play_all(play)) == []


async def test_heartbeats_without_a_fence_are_caught(play: Play, planting: Planting) -> None:
    planting.change(heartbeat_page, "HEARTBEAT", FENCE)
    await replaced_holder(play)
    (fault,) = faults(play.end())
    assert "nobody's heartbeat left its checkpoint \"anna's, too late\"" in fault


async def test_reports_without_a_fence_are_caught(play: Play, planting: Planting) -> None:
    planting.change(report_page, "SUCCEED", FENCE)
    await replaced_holder(play)
    found = "\n".join(faults(play.end()))
    assert "has a report that was taken and is not in the trail" in found
    assert re.search(r"succeed ends the lease \w+, but \w+ was held", found)


async def test_a_reaper_that_takes_living_leases_is_caught(play: Play, planting: Planting) -> None:
    planting.change(reap_page, "EXPIRED", r"AND lease_expires_at <= (CAST\(\S+ AS \w+\)|\S+)")
    await living_holder(play)
    found = "\n".join(faults(play.end()))
    assert re.search(r"was taken [\d.]+ s early", found)


async def test_a_claim_that_takes_what_another_holds_is_caught(
    play: Play, planting: Planting
) -> None:
    free = "status = 'queued'|lease_token IS NULL"
    planting.change(claim_page, "CLAIM", free, "status <> 'succeeded'")
    await play.lease("anna", "coveted")
    lease = await play.claimed("bert", "coveted")
    await play.ask("bert", report(lease, "succeeded"))
    found = "\n".join(faults(play.end()))
    assert re.search(r"began [\d.]+ s before the end of", found)
    assert "claim starts from queued, but it was running" in found


async def test_a_job_that_is_dropped_is_caught(play: Play) -> None:
    job = await play.created("dropped")
    play.forget(job["id"])
    (fault,) = faults(play.end())
    assert fault == f"job {job['id']}: was answered to dropped, and is gone"


async def test_a_report_that_is_taken_twice_is_caught(play: Play, planting: Planting) -> None:
    planting.change(report_page, "SUCCEED", rf"{FENCE}\s+AND jobs\.status = 'running'")
    lease = await play.lease("anna", "twice")
    for _ in range(2):
        await play.ask("anna", report(lease, "succeeded"))
    found = "\n".join(faults(play.end()))
    assert "ends 2 times: ['succeed', 'succeed']" in found
