"""`mia-bench import`."""
# ruff: noqa: N999

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import click

from mia_bench.cli.options import as_json, attack_options


@click.command(name="import")
@click.argument("files", metavar="[NAME=]FILE...", nargs=-1, required=True)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    required=True,
    help="Run folder; an earlier import is replaced.",
)
@click.option(
    "--calibration",
    multiple=True,
    metavar="[NAME=]FILE",
    help="Scores of samples that are the calibration set: thresholds come from them. Repeatable.",
)
@click.option("--lower-is-member", is_flag=True, help="Low scores mean members, as with losses and distances.")
@click.option(
    "--reduce",
    type=click.Choice(["only", "sum", "mean", "median", "min", "max", "corr"]),
    help="What becomes of several scores of one sample (timesteps, say); `corr`: each over its mean among all samples "
    "of the split, then their mean.  [default: there is only one]",
)
@click.option(
    "--column",
    "columns",
    multiple=True,
    metavar="ROLE=NAME",
    help="Which column is `sample`, `label` (1 member, 0 non-member, empty unknown), `score`, `attack`, `preset`, "
    "`split` or `timestep`, where it is not called so. Repeatable.",
)
@click.option("--ids-per-split", is_flag=True, help="Ids are counted anew in each split.")
@click.option(
    "--dataset", default="", metavar="NAME", help="What to call the samples.  [default: the first file's name]"
)
@click.option(
    "--target", default="an unknown target", show_default=True, metavar="NAME", help="What to call the model."
)
@attack_options
@as_json
def command(
    files: tuple[str, ...],
    out: Path,
    calibration: tuple[str, ...],
    lower_is_member: bool,
    reduce: str | None,
    columns: tuple[str, ...],
    ids_per_split: bool,
    dataset: str,
    target: str,
    options: tuple[str, ...],
    as_json: bool,
) -> int:
    """Make a run of per-sample scores that another program computed: CSV (also .csv.gz), Parquet or NPZ files.

    Attacks are told apart by a column `attack`, by NAME=FILE, or by the files' names; -o NAME.reduce=sum and -o
    NAME.lower_is_member=true are for one of them. Nothing is measured: target, noise, queries and time stay unknown,
    and no blind baseline can be run. `mia-bench score` reads the scores again with other options.
    """
    from mia_bench.engine.imports import Given, ImportOptions, import_scores
    from mia_bench.engine.score_files import roles
    from mia_bench.engine.select import parse_options
    from mia_bench.report.table import exit_status, show_results

    common = ({"reduce": reduce} if reduce else {}) | ({"lower_is_member": True} if lower_is_member else {})
    result = import_scores(
        ImportOptions(
            files=(*map(Given.parse, files), *(Given.parse(text, True) for text in calibration)),
            out=out,
            columns=roles(columns),
            options={"": common, **parse_options(options)},
            ids_per_split=ids_per_split,
            dataset=dataset,
            target=target,
            command=shlex.join(["mia-bench", *sys.argv[1:]]),
        )
    )
    show_results([result], as_json, str(out))
    return exit_status(result)
