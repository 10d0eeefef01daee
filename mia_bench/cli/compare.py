"""`mia-bench compare`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from mia_bench.cli.options import as_json


@click.command(name="compare")
@click.argument("baseline", type=click.Path(path_type=Path))
@click.argument("current", type=click.Path(path_type=Path))
@click.option(
    "--attacks",
    default="all",
    show_default=True,
    metavar="all|NAME[@PRESET],...|GLOB",
    help="Which of the baseline's attacks; all of them must be comparable.",
)
@click.option(
    "--metrics",
    default="auc",
    show_default=True,
    metavar="NAME,...",
    help="Tested where the target is another: auc, tpr_at_1, tpr_at_01, tnr_at_1, tnr_at_01.",
)
@click.option(
    "--fail-on",
    type=click.Choice(["rise", "drop", "both"]),
    default="rise",
    show_default=True,
    help="Direction in which a metric must not move.",
)
@click.option(
    "--margin",
    type=click.FloatRange(0, 1, max_open=True),
    default=0.0,
    show_default=True,
    help="Change of a metric that is tolerated.",
)
@click.option(
    "--alpha",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.05,
    show_default=True,
    help="Chance of a false alarm over all attacks and metrics, at most.",
)
@click.option(
    "--tolerance",
    type=click.FloatRange(0, min_open=True),
    default=1e-3,
    show_default=True,
    help="Where the target is the same: part of the spread of an attack's scores by which each may differ.",
)
@click.option("--update", is_flag=True, help="Compare nothing: record CURRENT as BASELINE, without its measurements.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "md", "json"]),
    default="text",
    show_default=True,
    help="Of the table.",
)
@as_json
def command(
    baseline: Path, current: Path, attacks: str, metrics: str, update: bool, form: str, as_json: bool, **given: Any
) -> int:
    """Hold a finished run against a baseline: an earlier run, or what --update kept of one.

    One target asked in the same way has to give every sample the same score: what differs is a fault of the program.
    Another target on the same samples is tested for leaking more. Ends with status 1 if anything regressed, 5 if
    nothing could be compared, or not all that was asked for.
    """
    from mia_bench.engine.compare import Gate, compare
    from mia_bench.errors import NothingError
    from mia_bench.report.compare import show_comparison

    if update:
        from mia_bench.engine.baseline import record

        record(current, baseline)
        click.echo(f"recorded {current} as baseline {baseline}")
        return 0
    gate = Gate(metrics=_parts(metrics), attacks=_parts(attacks), **given)
    found = compare(baseline, current, gate)
    show_comparison(found, "json" if as_json else form)
    if found.problem and not found.regressed:
        raise NothingError(f"compare {baseline} {current}", found.problem, found.fix)
    return found.status


def _parts(text: str) -> tuple[str, ...]:
    return tuple(filter(None, (part.strip() for part in text.split(","))))
