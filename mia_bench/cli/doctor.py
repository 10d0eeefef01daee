"""`mia-bench doctor`."""

from __future__ import annotations

from pathlib import Path

import click

from mia_bench.cli.options import as_json, plugin_files


@click.command(name="doctor")
@click.option("--target", metavar="NAME|PATH", help="Also: can it be loaded, and which attacks can be run on it.")
@click.option("--dataset", metavar="NAME[:ARG]", help="Also: what its samples allow.")
@click.option("--device", metavar="NAME", help="torch device.  [default: cuda if there is one]")
@plugin_files
@as_json
def command(target: str | None, dataset: str | None, device: str | None, files: tuple[Path, ...], as_json: bool) -> int:
    """Say what this machine has, and what can be run on it.

    Without a target nothing is loaded. Ends with status 4 if a plugin is broken.
    """
    from mia_bench.engine.doctor import examine
    from mia_bench.errors import ExitStatus
    from mia_bench.plugins import Registry
    from mia_bench.report.doctor import show_diagnosis

    found = examine(Registry.load(files), target, dataset, device)
    show_diagnosis(found, as_json)
    return ExitStatus.BROKEN_PLUGIN if found["broken plugins"] else ExitStatus.OK
