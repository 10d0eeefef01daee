"""`mia-bench doctor`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from mia_bench.cli.options import as_json, plugin_files, take_target_options, target_options


@click.command(name="doctor")
@click.option("--target", metavar="NAME|PATH|ID", help="Also: can it be loaded, and which attacks can be run on it.")
@target_options
@click.option("--reference", metavar="NAME|PATH|ID", help="The model that some attacks ask beside the target.")
@click.option("--dataset", metavar="NAME[:ARG]", help="Also: what its samples allow.")
@click.option("--device", metavar="NAME", help="torch device.  [default: cuda if there is one]")
@click.option("--dtype", type=click.Choice(["float32", "bfloat16", "float16"]), default="float32", show_default=True)
@plugin_files
@as_json
def command(files: tuple[Path, ...], as_json: bool, **given: Any) -> int:
    """Say what this machine has, and what can be run on it.

    Without a target nothing is loaded. Ends with status 4 if a plugin is broken, and with that of the error if what was
    named cannot be had.
    """
    from mia_bench.engine.doctor import examine
    from mia_bench.errors import ExitStatus
    from mia_bench.plugins import Registry
    from mia_bench.report.doctor import show_diagnosis

    options = take_target_options(given)
    found, error = examine(Registry.load(files), options=options, **given)
    show_diagnosis(found, error, as_json)
    if error:
        raise error
    return ExitStatus.BROKEN_PLUGIN if found["broken plugins"] else ExitStatus.OK
