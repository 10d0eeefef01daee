"""`mia-bench fetch`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from mia_bench.cli.options import as_json, plugin_files


@click.command(name="fetch")
@click.argument("dataset", metavar="DATASET")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="At most N urls of each class.")
@click.option("--again", is_flag=True, help="Ask again also for what is settled: pages that are gone, or no images.")
@click.option(
    "--workers", type=click.IntRange(1, 512), default=32, show_default=True, metavar="N", help="Urls asked at once."
)
@click.option(
    "--per-host", type=click.IntRange(1, 16), default=2, show_default=True, metavar="N", help="Of those, at one host."
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True, max=3600),
    default=30.0,
    show_default=True,
    metavar="SECONDS",
    help="Most that one request may take, body included.",
)
@click.option(
    "--allow-origin",
    metavar="HOST:PORT",
    help="The one origin that may be a private address; all others are refused.",
)
@plugin_files
@as_json
def command(dataset: str, allow_origin: str | None, files: tuple[Path, ...], as_json: bool, **given: Any) -> None:
    """Download the images of a dataset that is a list of urls, and freeze the list of those that survive.

    What is known already is not asked again, so the same command resumes a fetch that was stopped, and asks again what
    failed for a reason that may have passed. Images lie in $MIA_BENCH_CACHE, or the user's cache folder.
    """
    from mia_bench.engine.blame import blaming
    from mia_bench.engine.named import open_dataset
    from mia_bench.errors import UsageError
    from mia_bench.fetch.guard import parse_origin
    from mia_bench.fetch.links import UrlList
    from mia_bench.fetch.run import FetchOptions, fetch
    from mia_bench.plugins import Registry
    from mia_bench.report.fetched import show_fetched, watching

    registry = Registry.load(files)
    opened = open_dataset(registry, dataset)
    if not isinstance(opened, UrlList):
        able = ", ".join(sorted(name for name, cls in registry.datasets.items() if issubclass(cls, UrlList)))
        raise UsageError(f"dataset {dataset}", "it is no list of urls, so there is nothing to fetch", f"known: {able}")
    try:
        origin = parse_origin(allow_origin) if allow_origin else None
    except ValueError as error:
        raise UsageError("--allow-origin", str(error), "write --allow-origin 127.0.0.1:8000") from error
    with blaming("dataset", dataset, type(opened)):
        opened.download()
        _ = opened.links  # kept for later
    with watching() as watch:
        fetched = fetch(opened, FetchOptions(allow_origin=origin, **given), watch)
    show_fetched(fetched, as_json)
