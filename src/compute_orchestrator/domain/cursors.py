"""Cursors: opaque words that say where the next page begins. Keyset, never offset."""

import binascii
from base64 import urlsafe_b64decode, urlsafe_b64encode

from compute_orchestrator.domain.errors import ValidationFailed
from compute_orchestrator.domain.values import LARGEST_INTEGER


def encode_cursor(kind: str, after_id: int) -> str:
    """The cursor of a page that goes on after this id. `kind` names the listing and its order."""
    return urlsafe_b64encode(f"{kind}:{after_id}".encode()).decode().rstrip("=")


def decode_cursor(kind: str, cursor: str) -> int:
    """The id behind a cursor.

    Raises ValidationFailed for a cursor that was not made for this listing and order.
    """
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        made_for, _, after_id = urlsafe_b64decode(padded.encode("ascii")).decode().partition(":")
        if made_for == kind and after_id.isascii() and after_id.isdigit() and len(after_id) < 20:
            number = int(after_id)
            if number <= LARGEST_INTEGER:
                return number
    except (binascii.Error, UnicodeError):
        pass
    raise ValidationFailed(
        "The cursor is not one of this listing's.",
        [("query.cursor", "use next_cursor as it was given, with the same order")],
    )
