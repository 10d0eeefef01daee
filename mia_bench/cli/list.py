"""`mia-bench list`."""

from __future__ import annotations

from pathlib import Path

import click

from mia_bench.cli.options import as_json, plugin_files

KINDS = ("attacks", "datasets", "targets", "encoders", "executors", "plugins")


@click.command(name="list")
@click.argument("kinds", nargs=-1, type=click.Choice(KINDS))
@plugin_files
@as_json
def command(kinds: tuple[str, ...], files: tuple[Path, ...], as_json: bool) -> None:
    """List attacks, datasets, targets, encoders, executors and plugins with their status; all, or the kinds named."""
    from mia_bench.plugins import Registry
    from mia_bench.report.catalogue import show_catalogue

    show_catalogue(Registry.load(files, strict=False), kinds or KINDS, as_json)
