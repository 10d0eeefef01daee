"""`mia-bench runs`."""

from __future__ import annotations

from pathlib import Path

import click

from mia_bench.cli.options import as_json


@click.command(name="runs")
@click.argument("folder", type=click.Path(path_type=Path), default=Path("runs"))
@as_json
def command(folder: Path, as_json: bool) -> int:
    """List the runs in FOLDER (by default `runs`): what of, the best attack, and how far each has come."""
    from mia_bench.engine.runs import list_runs
    from mia_bench.report.runs import show_runs

    show_runs(list_runs(folder), as_json)
    return 0
