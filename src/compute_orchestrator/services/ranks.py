"""The order of the operations in a turn: what keeps leases alive goes first."""

from typing import Final

HEARTBEAT: Final = 10
REPORT: Final = 20
OPERATE: Final = 30  # cancel, retry, pause
REAP: Final = 40
CREATE: Final = 50
PROMOTE: Final = 55
CLAIM: Final = 60
HOUSEKEEPING: Final = 70  # sightings, folding, pruning
