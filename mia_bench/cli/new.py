"""`mia-bench new`."""

from __future__ import annotations

from pathlib import Path

import click

from mia_bench.cli.options import plugin_files
from mia_bench.skeleton import KINDS, Kind


@click.command(name="new")
@click.argument("kind", type=click.Choice(KINDS))
@click.argument("name")
@click.option("--package", is_flag=True, help="Write a folder that `pip install` takes, instead of a file.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(),
    metavar="FOLDER",
    help="Where to write it.  [default: here]",
)
@plugin_files
def command(kind: Kind, name: str, package: bool, out: Path, files: tuple[Path, ...]) -> None:
    """Write a plugin that works, with its test, to put your own idea into.

    The test is the conformance suite of `mia_bench.testing`.
    """
    from mia_bench.plugins import Registry
    from mia_bench.skeleton import write

    written, run = write(Registry.load(files, strict=False), kind, name, out, package)
    for path in written:
        click.echo(f"wrote {path}")
    click.echo(f"run it: {run}")
    click.echo(f"test it: pytest {written[1]}")
    if package:
        click.echo(f"install it: pip install {written[0].parent}")
