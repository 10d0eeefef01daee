"""A recorded baseline: a finished run without its measurements, small enough to be committed."""

from __future__ import annotations

import shutil
from pathlib import Path

from mia_bench.engine.paired import finished_run
from mia_bench.errors import UnavailableError, UsageError
from mia_bench.store import Store

FILES = ("run.json", "scores.parquet", "results.json")
"""What a baseline holds; `compare` and `report` need no more."""

NOT_RECORDED = "nothing was recorded; mend it, or leave it out of the attacks"


def record(run: Path, baseline: Path) -> None:
    """Copy what is worth keeping of a finished run; an earlier baseline is replaced.

    Args:
        run: A finished run folder.
        baseline: Where to; made if missing.

    Raises:
        UnavailableError: The run is unfinished or damaged, or an attack has no scores: nothing would be compared with
            that, whatever became of it later.
        UsageError: `baseline` is `run` itself, a file, a run with measurements, or cannot be written.
    """
    for row in finished_run(run).result.rows:
        if row.status != "ok" and not row.control:
            raise UnavailableError(f"attack {row.label}", f"it has no scores: {row.reason}", NOT_RECORDED)
    store, what = Store(baseline), f"baseline {baseline}"
    if baseline.exists() and baseline.samefile(run):
        raise UsageError(what, "it is the run itself", "give another folder")
    if any(store.shards.glob("*.parquet")):
        raise UsageError(what, "it is a run with measurements, which would be lost", "give another folder")
    try:
        baseline.mkdir(parents=True, exist_ok=True)
        store.remove("results.json")  # last to be written: what has one is whole
        for name in FILES:
            shutil.copyfile(run / name, baseline / name)
    except OSError as error:
        why = f"cannot be written: {error.strerror or error}"
        raise UsageError(what, why, "give a folder you may write to") from error
