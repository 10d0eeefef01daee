"""Records that resume, and medians of pairs: single timings vary too much to be compared on their own."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any


class Record:
    """A JSON record that is written after each step and continued by the same command.

    Args:
        path: Where it lies; None keeps it in memory.
        about: What the figures depend on. A record of something else is not continued.

    Raises:
        SystemExit: The file holds a record of something else.
    """

    def __init__(self, path: Path | None, about: dict[str, Any]) -> None:
        self.path, self.data = path, json.loads(json.dumps(about))
        self.data["steps"] = {}
        if path and path.exists():
            found = json.loads(path.read_text(encoding="utf-8"))
            if any(_clean(found.get(name)) != _clean(self.data[name]) for name in about):
                why = "it holds figures of another commit, machine or choice"
                raise SystemExit(f"{path}: {why}; remove it, or give another --out")
            self.data = found

    @property
    def steps(self) -> dict[str, Any]:
        """Everything measured so far, by name."""
        steps: dict[str, Any] = self.data["steps"]
        return steps

    def once(self, name: str, measure: Callable[[], Any]) -> Any:
        """What `measure` gives, JSON-ready: from the record if it is there, else measured and written."""
        if name not in self.steps:
            self.steps[name] = json.loads(json.dumps(measure()))
            self.write()
        return self.steps[name]

    def write(self, **figures: Any) -> None:
        """Add figures, and write the file in one step."""
        self.data.update(figures)
        if self.path:
            part = self.path.with_suffix(".part")
            part.write_text(json.dumps(self.data, indent=1) + "\n", encoding="utf-8")
            part.replace(self.path)


def _clean(value: Any) -> Any:
    """Without what writing the record itself changes: the checkout it lies in is no longer clean."""
    return {k: v for k, v in value.items() if k != "dirty"} if isinstance(value, dict) else value


def sign_interval(values: Sequence[float], level: float = 0.95) -> tuple[float, float]:
    """Order-statistic interval of the median (binomial); the extremes where there are too few values."""
    from scipy.stats import binom

    ordered, n = sorted(values), len(values)
    k = int(binom.ppf((1 - level) / 2, n, 0.5))
    return ordered[max(0, k - 1)], ordered[min(n - 1, n - k)]


def coverage(n: int, level: float = 0.95) -> float:
    """How often that interval of n values holds the median: below `level` where they are too few (six reach 95 %)."""
    from scipy.stats import binom

    k = max(1, int(binom.ppf((1 - level) / 2, n, 0.5)))
    return float(1 - 2 * binom.cdf(k - 1, n, 0.5))


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Median and interval of the ratios of pairs."""
    low, high = sign_interval(values)
    return {"median": statistics.median(values), "low": low, "high": high, "all": list(values)}


def shown(found: dict[str, Any] | None, digits: int = 2) -> str:
    """A spread in a table."""
    if not found or not math.isfinite(found["median"]):
        return "–"
    if len(found["all"]) == 1:
        return f"{found['median']:.{digits}f}"  # a single timing has no interval
    return f"{found['median']:.{digits}f} [{found['low']:.{digits}f}, {found['high']:.{digits}f}]"
