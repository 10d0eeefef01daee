"""`mia-bench inspect`."""

from __future__ import annotations

from pathlib import Path

import click

from mia_bench.cli.options import as_json, plugin_files


@click.command(name="inspect")
@click.argument("dataset", metavar="DATASET[:ARG]")
@click.option("--html", type=click.Path(path_type=Path), metavar="FILE", help="Write a page with pictures, too.")
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    metavar="N",
    help="Read at most N images of each class in each split; counts and captions are of all.",
)
@click.option(
    "--encoder",
    metavar="NAME[:PATH]",
    help="Whose embeddings are compared.  [default: efficientnet if it is at hand, else emoji-clip]",
)
@plugin_files
@as_json
def command(
    dataset: str, html: Path | None, limit: int | None, encoder: str | None, files: tuple[Path, ...], as_json: bool
) -> int:
    """Show what a dataset is like before any model is asked.

    Counts, sizes, captions, duplicates, and what tells members from non-members without the model: a run on a split
    that fails here measures the split.
    """
    from mia_bench.engine.inspect import inspect_dataset
    from mia_bench.errors import UsageError
    from mia_bench.plugins import Registry
    from mia_bench.report.inspect import show_inspection

    if html and not html.parent.is_dir():  # before images are read
        raise UsageError(f"file {html}", f"no folder {html.parent}", "give --html a path that can be written")
    found, samples = inspect_dataset(Registry.load(files), dataset, limit, encoder)
    show_inspection(found, as_json)
    if html:
        from mia_bench.report.inspect_html import write_page

        write_page(html, found, samples)
        click.echo(f"page: {html}", err=as_json)
    return 0
