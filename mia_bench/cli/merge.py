"""`mia-bench merge`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from mia_bench.cli.options import as_json, plugin_files, task_options


@click.command(name="merge")
@click.argument("folders", metavar="RUN...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--out", type=click.Path(path_type=Path), metavar="FOLDER", help="Join several folders to this one; a new one."
)
@click.option("--partial", is_flag=True, help="Score what there is, though samples are lacking.")
@task_options
@plugin_files
@as_json
def command(
    folders: tuple[Path, ...], out: Path | None, partial: bool, files: tuple[Path, ...], as_json: bool, **compared: Any
) -> int:
    """Join what `run --shard i/N` measured, and score it: the same as one run of everything.

    Shards may have written to one folder on a disk that they share, or each to its own. Every sample must be measured,
    or be said to be unmeasurable by the shard that tried; one that was measured twice must be the same both times.
    """
    from mia_bench.engine.merge import merge
    from mia_bench.plugins import Registry
    from mia_bench.report.table import exit_status, show_results

    folder, results = merge(Registry.load(files), folders, out, partial, **compared)
    show_results(results, as_json, str(folder))
    return exit_status(*results)
