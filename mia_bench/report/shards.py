"""What is said when a shard is measured."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mia_bench.errors import ExitStatus
from mia_bench.report.text import json_text, printable

if TYPE_CHECKING:
    from mia_bench.engine.measure import Outcome
    from mia_bench.engine.shards import Shard

LINES = 12  # reasons printed


def show_shard(
    shard: Shard, done: Sequence[tuple[Path, Outcome]], as_json: bool = False, files: Sequence[Path] = ()
) -> int:
    """Print what could not be measured and how to go on, with these plugin files; the exit status, as of a run."""
    attacks = [f"{label} failed: {why}" for _, outcome in done for label, why in outcome.attacks.items()]
    samples = [
        f"sample {sample}{f' by {label}' if label else ''}: {why}"
        for _, outcome in done
        for (sample, label), why in outcome.samples.items()
    ]
    status = ExitStatus.BROKEN_PLUGIN if attacks else ExitStatus.UNAVAILABLE if samples else ExitStatus.OK
    if as_json:
        print(json_text({"shard": str(shard), "folder": str(done[0][0]), "attacks": attacks, "samples": samples}))
        return status
    for line in [*attacks, *samples[:LINES]]:
        print(printable(line))
    if len(samples) > LINES:
        print(f"... and {len(samples) - LINES} more; the merged results.json lists all")
    folder = done[0][0]
    print(printable(f"shard {shard} is measured: {folder}"))
    plugins = "".join(f" -p {shlex.quote(str(file))}" for file in files)
    print(printable(f"when all {shard.count} are: mia-bench merge{plugins} {shlex.quote(str(folder))}"))
    return status
