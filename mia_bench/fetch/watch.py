"""Who is told how a fetch goes."""

from __future__ import annotations

import logging
import time
from typing import Protocol

from mia_bench.fetch.ledger import Row

EVERY_S = 10.0
logger = logging.getLogger("mia_bench")


class Watch(Protocol):
    """Is told how it goes."""

    def start(self, total: int, known: int) -> None:
        """So many urls are to be asked; so many more are known already. Called again when more are needed."""

    def step(self, row: Row) -> None:
        """A row was written."""


class Logged:
    """Says it on the log, for a run that fetches what it lacks.

    Args:
        what: For messages.
        instead: What can be done instead.
    """

    def __init__(self, what: str, instead: str) -> None:
        self.what, self.instead = what, instead
        self.total = self.done = self.images = 0
        self.last = time.monotonic()

    def start(self, total: int, known: int) -> None:
        if total and not self.total:
            logger.warning("%s: fetching images that are not here yet; %s", self.what, self.instead)
        self.total += total

    def step(self, row: Row) -> None:
        self.done += 1
        self.images += not row.error
        if (now := time.monotonic()) - self.last > EVERY_S:
            self.last = now
            logger.warning("%s of %s urls asked, %s images", f"{self.done:,}", f"{self.total:,}", f"{self.images:,}")
