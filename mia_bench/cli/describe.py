"""`mia-bench describe`."""

from __future__ import annotations

from pathlib import Path

import click

from mia_bench.cli.options import as_json, plugin_files


@click.command(name="describe")
@click.argument("name")
@plugin_files
@as_json
def command(name: str, files: tuple[Path, ...], as_json: bool) -> None:
    """Describe one attack, dataset or target: source, needs, cost, presets, parameters."""
    from mia_bench.plugins import Registry
    from mia_bench.report.catalogue import show_description

    show_description(Registry.load(files), name, as_json)
