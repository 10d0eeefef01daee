"""`mia-bench score`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from mia_bench.cli.options import as_json, attack_options, calibrate_on, plugin_files, task_options


@click.command(name="score")
@click.argument("folder", metavar="RUN", type=click.Path(path_type=Path))
@calibrate_on
@task_options
@attack_options
@plugin_files
@as_json
def command(folder: Path, options: tuple[str, ...], files: tuple[Path, ...], as_json: bool, **compared: Any) -> int:
    """Score a run again from its stored measurements; no target, no GPU.

    Parameters that only scoring reads may be changed, e.g. -o clid.alpha=0.5. Without --calibrate-on the run is
    calibrated as it was planned; `--calibrate-on RUN`, itself, means its own calibration set.
    """
    from mia_bench.engine.run import rescore_tasks
    from mia_bench.engine.select import parse_options
    from mia_bench.plugins import Registry
    from mia_bench.report.table import exit_status, show_results

    results = rescore_tasks(Registry.load(files), folder, parse_options(options), **compared)
    show_results(results, as_json, str(folder))
    return exit_status(*results)
