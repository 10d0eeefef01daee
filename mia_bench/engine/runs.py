"""Which runs a folder holds, and how far each has come."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mia_bench.engine.plan import read_plan
from mia_bench.engine.run import how_far, read_result
from mia_bench.errors import MiaBenchError, NothingError, UnavailableError
from mia_bench.metrics import Metric
from mia_bench.result import Result
from mia_bench.store import Store


@dataclass(frozen=True)
class Listed:
    """One run.

    Attributes:
        folder: Where it is.
        state: `finished`, how far it has come, or why it cannot be read.
        dataset: As the user named it; empty if the run cannot be read. So are the others.
        target: Likewise.
        seed: Noise seed.
        attacks: Labels without controls.
        best: The attack with the largest AUC, and that.
        date: When it last measured, ISO 8601 in UTC.
    """

    folder: Path
    state: str
    dataset: str = ""
    target: str = ""
    seed: int | None = None
    attacks: tuple[str, ...] = ()
    best: tuple[str, Metric] | None = None
    date: str = ""


def list_runs(folder: Path) -> list[Listed]:
    """Every run at or below a folder, in the order of their paths.

    Raises:
        NothingError: There is none.
    """
    found = [_listed(path) for path in sorted(_folders(folder))]
    if not found:
        why = "no run in it" if folder.is_dir() else "no such folder"
        raise NothingError(
            f"runs in {folder}", why, "`mia-bench run` writes one; name another folder: mia-bench runs FOLDER"
        )
    return found


def _folders(folder: Path) -> Iterator[Path]:
    for path, below, files in os.walk(folder):
        below[:] = [name for name in below if not name.startswith(".")]
        if "run.json" in files:
            below.clear()
            yield Path(path)


def _listed(folder: Path) -> Listed:
    store = Store(folder)
    try:
        plan = read_plan(store)
    except MiaBenchError as error:
        return Listed(folder, error.why)
    try:
        date = max((str(record.get("time", "")) for record in store.provenance().values()), default="")
        result, state = _result(folder, store)
    except UnavailableError as error:
        date, result, state = "", None, error.why
    attacks = tuple(a.label for a in plan.attacks if not a.control)
    best = best_attack(result) if result else None
    return Listed(folder, state, plan.dataset, plan.target, plan.seed, attacks, best, date)


def _result(folder: Path, store: Store) -> tuple[Result | None, str]:
    if (folder / "results.json").exists():
        result = read_result(folder)
        return result, f"unfinished: {result.unfinished.partition(';')[0]}" if result.unfinished else "finished"
    left = how_far(read_plan(store), store)
    return None, f"unfinished: {left}" if left else "measured, not scored"


def best_attack(result: Result) -> tuple[str, Metric] | None:
    """The attack with the largest AUC, no control, and that AUC."""
    known = [(r.label, r.evaluation.auc) for r in result.rows if r.evaluation and not r.control]
    return max((one for one in known if one[1].value is not None), key=lambda one: one[1].value or 0.0, default=None)
