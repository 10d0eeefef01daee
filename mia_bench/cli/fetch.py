"""`mia-bench fetch`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from mia_bench.cli.options import allow_origin, as_json, plugin_files, source_options, take_target_options


@click.command(name="fetch")
@click.argument("dataset", metavar="[DATASET]", required=False)
@click.option(
    "--weights",
    metavar="TARGET",
    help="Instead: get the weights of a target into the hub's cache, for machines without a network.",
)
@source_options
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
@allow_origin
@plugin_files
@as_json
def command(dataset: str | None, weights: str | None, files: tuple[Path, ...], as_json: bool, **given: Any) -> None:
    """Download the images of a dataset that is a list of urls, and freeze the list of those that survive.

    What is known already is not asked again, so the same command resumes a fetch that was stopped, and asks again what
    failed for a reason that may have passed. Images lie in $MIA_BENCH_CACHE, or the user's cache folder.

    With --weights, fetch a model instead, as `run` would with the same options.
    """
    from mia_bench.errors import UsageError
    from mia_bench.plugins import Registry

    options = take_target_options(given)
    if (dataset is None) == (weights is None):
        why = "nothing to fetch is named" if dataset is None else "images and weights are fetched one after the other"
        raise UsageError(
            "mia-bench fetch", why, "write `mia-bench fetch DATASET` or `mia-bench fetch --weights TARGET`"
        )
    registry = Registry.load(files)
    if weights is not None:
        from mia_bench.engine.prefetch import prefetch
        from mia_bench.report.fetched import show_prefetched

        show_prefetched(prefetch(registry, weights, options), as_json)
        return
    if options.given:
        option = f"--{next(iter(options.given)).replace('_', '-')}"
        raise UsageError(option, "a dataset has no weights", "leave it out, or write --weights TARGET")
    assert dataset is not None
    _fetch_images(registry, dataset, given, as_json)


def _fetch_images(registry: Any, dataset: str, given: dict[str, Any], as_json: bool) -> None:
    from mia_bench.engine.named import open_dataset
    from mia_bench.errors import UsageError
    from mia_bench.fetch.links import UrlList
    from mia_bench.fetch.run import FetchOptions, fetch
    from mia_bench.report.fetched import show_fetched, watching

    opened = open_dataset(registry, dataset)
    if not isinstance(opened, UrlList):
        able = ", ".join(sorted(name for name, cls in registry.datasets.items() if issubclass(cls, UrlList)))
        raise UsageError(f"dataset {dataset}", "it is no list of urls, so there is nothing to fetch", f"known: {able}")
    with watching() as watch:
        fetched = fetch(opened, FetchOptions(**given), watch)
    show_fetched(fetched, as_json)
