"""Row counts that fitted a device's memory, remembered for the next run.

One small file for each device, target and way of loading it, in the user's cache: a GPU that ran out of memory halves a
network's rows until its calls fit, and the next run need not run out again.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

from mia_bench.cache import cache_folder


class Fitting:
    """What fitted before.

    Args:
        about: What decides how much memory a call takes and how much there is: device, target, dtype, ...
        free: Bytes free now, beside the weights.
    """

    def __init__(self, about: Mapping[str, Any], free: int) -> None:
        key = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:32]
        self.about, self.free, self.path = about, free, cache_folder() / "rows" / f"{key}.json"

    def rows(self, network: str, most: int) -> int:
        """Rows to begin with: what fitted, as often doubled as there is now twice the memory, and `most` at most."""
        found = self._read().get(network)
        if found is None:
            return most
        rows, free = found
        while rows < most and self.free >= 2 * free:
            rows, free = 2 * rows, 2 * free
        return min(rows, most)

    def keep(self, network: str, rows: int) -> None:
        """Remember what fitted; a cache that cannot be written costs nothing but the memory of it."""
        kept = {name: {"rows": r, "free_bytes": f} for name, (r, f) in self._read().items()}
        kept[network] = {"rows": rows, "free_bytes": self.free}
        with suppress(OSError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            part = self.path.with_name(f".{self.path.name}.{os.getpid()}-{uuid4().hex[:8]}.tmp")
            part.write_text(json.dumps({"about": self.about, "fitted": kept}, indent=1) + "\n", encoding="utf-8")
            part.replace(self.path)

    def _read(self) -> dict[str, tuple[int, int]]:
        """Network -> rows and bytes that were free; nothing of a file that is damaged."""
        try:
            fitted = json.loads(Path(self.path).read_text(encoding="utf-8"))["fitted"]
            found = {str(name): (entry["rows"], entry["free_bytes"]) for name, entry in fitted.items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return {}
        return {n: v for n, v in found.items() if all(type(number) is int and number > 0 for number in v)}
