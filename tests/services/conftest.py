"""The services stand on a real store. Here the coalescer has one lane on every store, so that a
test can tell which turn carries what; tests of the statements have the store's own lanes.
"""

from collections.abc import AsyncGenerator

import pytest

from compute_orchestrator.db.engine import Store
from tests.clocks import ManualClock
from tests.store.house import House
from tests.stores import store as store


@pytest.fixture
async def house(store: Store, clock: ManualClock) -> AsyncGenerator[House]:
    """The services on the store."""
    house = House(store, clock, one_lane=True)
    try:
        yield house
    finally:
        await house.close()
