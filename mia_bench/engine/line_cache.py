"""Texts that were computed from images once, remembered between runs."""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Mapping

from mia_bench.cache import cache_folder
from mia_bench.errors import brief

logger = logging.getLogger("mia_bench")
SHA256 = re.compile(r"[0-9a-f]{64}")
LINE = re.compile(rf'({SHA256.pattern}) ("[\x20-\x7e]*")\n?')


class LineCache:
    """Texts by the sha256 of what they were computed from: a file of lines that any number of processes extend.

    Each call of `add` is one write at the end of the file, which starts on a new line: what a killed process left
    there costs its own line alone. A file that cannot be read or written is said once, and costs only time.

    Args:
        name: Of the file; a new definition of the texts needs a new one.
    """

    def __init__(self, name: str) -> None:
        self.path = cache_folder() / f"{name}.txt"
        self.writable = True
        self.known = self._read()

    def _read(self) -> dict[str, str]:
        try:
            with self.path.open(encoding="ascii", errors="replace") as file:
                return dict(filter(None, map(_parsed, file)))
        except FileNotFoundError:
            return {}
        except OSError as error:
            logger.warning("cache %s: %s; it is not used", self.path, error.strerror or brief(error))
            return {}

    def add(self, texts: Mapping[str, str]) -> None:
        """Remember these; what is not named by a sha256 is left out."""
        new = {key: text for key, text in texts.items() if SHA256.fullmatch(key) and key not in self.known}
        self.known.update(new)
        if not new or not self.writable:
            return
        lines = "\n" + "".join(f"{key} {json.dumps(text)}\n" for key, text in new.items())
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


def _parsed(line: str) -> tuple[str, str] | None:
    found = LINE.fullmatch(line)
    try:
        return (found[1], json.loads(found[2])) if found else None
    except ValueError:
        return None
