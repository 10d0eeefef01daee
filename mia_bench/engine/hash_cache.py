"""Numbers that were computed from images once, remembered between runs."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping

from mia_bench.cache import cache_folder
from mia_bench.errors import brief

logger = logging.getLogger("mia_bench")
SHA256 = re.compile(r"[0-9a-f]{64}")
LINE = re.compile(rf"({SHA256.pattern}) ([0-9a-f]{{16}})\n?")


class HashCache:
    """64-bit numbers by the sha256 of what they were computed from: a text file that any number of processes extend.

    Each call of `add` is one write at the end of the file, which starts on a new line: what a killed process left
    there costs its own line alone. A file that cannot be read or written is said once, and costs only time.

    Args:
        name: Of the file; a new definition of the numbers needs a new one.
    """

    def __init__(self, name: str) -> None:
        self.path = cache_folder() / f"{name}.txt"
        self.writable = True
        self.known = self._read()

    def _read(self) -> dict[str, int]:
        try:
            with self.path.open(encoding="ascii", errors="replace") as file:
                found = (LINE.fullmatch(line) for line in file)
                return {line[1]: int(line[2], 16) for line in found if line}
        except FileNotFoundError:
            return {}
        except OSError as error:
            logger.warning("cache %s: %s; it is not used", self.path, error.strerror or brief(error))
            return {}

    def add(self, numbers: Mapping[str, int]) -> None:
        """Remember these; what is not named by a sha256 is left out."""
        new = {key: n for key, n in numbers.items() if SHA256.fullmatch(key) and key not in self.known}
        self.known.update(new)
        if not new or not self.writable:
            return
        lines = "\n" + "".join(f"{key} {number:016x}\n" for key, number in new.items())
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
            try:
                os.write(file, lines.encode())
            finally:
                os.close(file)
        except OSError as error:
            self.writable = False
            logger.warning("cache %s: %s; images will be read again", self.path, error.strerror or brief(error))
