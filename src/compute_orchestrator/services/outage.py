"""An outage is told in few lines: each cause once a minute, and then that it is over."""

import logging
import re
import time
from typing import Final

AGAIN_SECONDS: Final = 60.0
"""Before the same cause is told again."""

_NUMBERS: Final = re.compile(r"\d+")


class Outage:
    """`begins` and `ends` are its first words and its last."""

    def __init__(self, logger: logging.Logger, *, begins: str, ends: str) -> None:
        self._logger = logger
        self._begins = begins
        self._ends = ends
        self._told: dict[str, float] = {}
        self._lasts = False

    def came(self, cause: str) -> None:
        """Tell it, unless the same was told a short while ago; in other numbers it is the same."""
        kind, now = _NUMBERS.sub("", cause), time.monotonic()
        self._told = {it: at for it, at in self._told.items() if now - at < AGAIN_SECONDS}
        if kind not in self._told:
            self._told[kind] = now
            self._lasts = True
            self._logger.warning("%s: %s", self._begins, cause)

    def is_over(self) -> None:
        """Tell that too, where it was told that it began."""
        if self._lasts:
            self._lasts = False
            self._logger.info("%s", self._ends)
