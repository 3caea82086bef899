"""Says once that the server went away, and once that it is back, whichever calls find it out."""

import logging

from compute_orchestrator.client.errors import ClientError, NoAnswer
from compute_orchestrator.client.observer import Observer

logger = logging.getLogger("compute_orchestrator.worker")


class Presence:
    """Each kind of call tells how it went; those that fail are remembered until they work."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer
        self._failing: dict[str, ClientError] = {}

    @property
    def is_away(self) -> bool:
        return bool(self._failing)

    def failed(self, what: str, error: ClientError) -> None:
        self._observer.call_failed(what)
        if self._failing:
            logger.debug("%s failed: %s", what, error)
        elif isinstance(error, NoAnswer):
            logger.warning("the server is away, and is asked again until it is back: %s", error)
        else:
            logger.warning("%s fails, and is tried again: %s", what, error)
        self._failing[what] = error

    def worked(self, what: str) -> None:
        """So the server is there; another kind of call may still be refused."""
        if not self._failing:
            return
        self._failing.pop(what, None)
        for other, error in list(self._failing.items()):
            if isinstance(error, NoAnswer):
                del self._failing[other]
        if not self._failing:
            logger.info("the server is back: %s works again", what)
