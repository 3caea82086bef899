"""How much goes into one call."""

import json

# Below the server's 16 MiB, whatever the escapes add, and soon sent.
MOST_BYTES = 4 * 2**20

SMALL_TYPES = (type(None), bool, int, float)


def size_of(value: object) -> int:
    """About how many bytes of JSON it is."""
    if isinstance(value, SMALL_TYPES):
        return 0
    if isinstance(value, str):
        return len(value)
    try:
        return len(json.dumps(value, separators=(",", ":")))
    except (TypeError, ValueError):  # it is refused where it is sent
        return 0
