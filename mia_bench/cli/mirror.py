"""`mia-bench mirror`."""

from __future__ import annotations

from pathlib import Path

import click

from mia_bench.cli.options import as_json


@click.command(name="mirror")
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("mirrored", metavar="RUN", type=click.Path(path_type=Path))
@as_json
def command(run: Path, mirrored: Path, as_json: bool) -> int:
    """Compare a run on a target with one on its mirror, trained on the non-members instead.

    What an attack reads off the model swaps sides between the two; what it reads off the split does not. Ends with
    status 1 if an attack's deviation is other than 0.
    """
    from mia_bench.engine.mirror import mirror
    from mia_bench.errors import ExitStatus
    from mia_bench.report.mirror import show_mirror

    rows = mirror(run, mirrored)
    show_mirror(rows, as_json)
    return ExitStatus.OK if all(row.passes for row in rows) else ExitStatus.REGRESSED
