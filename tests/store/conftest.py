"""Each test of a statement runs on every store."""

from collections.abc import AsyncGenerator

import pytest

from compute_orchestrator.db.engine import Store
from tests.clocks import ManualClock
from tests.store.house import House
from tests.stores import store as store


@pytest.fixture
async def house(store: Store, clock: ManualClock) -> AsyncGenerator[House]:
    """The services on the store."""
    house = House(store, clock)
    try:
        yield house
    finally:
        await house.close()
