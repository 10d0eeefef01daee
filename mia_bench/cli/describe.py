"""`mia-bench describe`."""

from __future__ import annotations

from pathlib import Path

import click

from mia_bench.cli.options import as_json, plugin_files


@click.command(name="describe")
@click.argument("name")
@click.option(
    "--markdown",
    is_flag=True,
    help="Print it as in docs/; `all` (attacks), `datasets`, `targets`, `cli`, `hooks`, `contracts` and `schema` are "
    "whole pages.",
)
@plugin_files
@as_json
def command(name: str, markdown: bool, files: tuple[Path, ...], as_json: bool) -> None:
    """Describe one attack, dataset, target or encoder: source, equation, needs, cost, presets, parameters.

    NAME may be `all`: every attack.
    """
    from mia_bench.plugins import Registry

    registry = Registry.load(files)
    if markdown:
        from mia_bench.report.reference import show_markdown

        show_markdown(registry, name)
        return
    from mia_bench.report.catalogue import show_description

    show_description(registry, name, as_json)
