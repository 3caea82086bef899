"""Small values that the whole server speaks in."""

from typing import Final, NewType

JobId = NewType("JobId", int)
LeaseToken = NewType("LeaseToken", str)
Micros = NewType("Micros", int)
"""A moment: microseconds since 1970-01-01T00:00:00Z, the same on every store."""

JsonText = NewType("JsonText", str)
"""JSON that was checked on its way in, kept as text and given back as it came."""

MICROS_PER_SECOND: Final = 1_000_000

LARGEST_INTEGER: Final = 2**63 - 1
"""What both stores hold in an integer column, ids too."""

PRODUCER: Final = "producer"
OPERATOR: Final = "operator"
REAPER: Final = "reaper"
SERVER: Final = "server"


def micros(seconds: float) -> int:
    """A duration in seconds as whole microseconds."""
    return round(seconds * MICROS_PER_SECOND)
