"""Where mia-bench keeps what it fetched or made once: one folder."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """`$MIA_BENCH_CACHE`, else `mia-bench` in the user's cache folder (XDG); made by whoever writes to it."""
    if chosen := os.environ.get("MIA_BENCH_CACHE"):
        return Path(chosen).expanduser()
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if Path(base).is_absolute() else Path.home() / ".cache") / "mia-bench"
