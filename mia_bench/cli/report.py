"""`mia-bench report`."""

from __future__ import annotations

from pathlib import Path

import click

from mia_bench.cli.options import as_json


@click.command(name="report")
@click.argument("folder", metavar="RUN", type=click.Path(path_type=Path))
@click.option("--details", is_flag=True, help="Every metric with its interval, status and reason.")
@as_json
def command(folder: Path, details: bool, as_json: bool) -> int:
    """Print the table of a finished run: its folder, or a file that `run --json` printed."""
    from mia_bench.engine.run import read_result
    from mia_bench.report.table import show_details, show_results

    result = read_result(folder)
    show_results([result], as_json, str(folder) if folder.is_dir() else "")
    if details and not as_json:
        show_details(result)
    return 0
