"""`mia-bench audit`."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Any

import click

from mia_bench.cli.options import (
    as_json,
    attack_options,
    plugin_files,
    take_target_options,
    target_options,
    worker_options,
)

# Globs, so that one that a target or missing captions do not allow is left out. Each is cheap; more would cost power.
CHEAP = "cli?,pi?,sim?,los?,pfam?"
NAMED = "clid, pia, sima, loss and pfami"
SAID = 10  # images left out that are named


@click.command(name="audit")
@click.argument("run", metavar="[RUN]", required=False, type=click.Path(path_type=Path))
@click.option("--target", metavar="NAME|PATH|ID", help="Instead of RUN: run attacks on this model first.")
@click.option(
    "--dataset",
    metavar="NAME[:ARG]",
    help="The images: known non-members beside those in question.  [default: the target's own]",
)
@click.option(
    "--suspects",
    metavar="NAME[:ARG]",
    help="The images in question, if they are elsewhere; of --dataset only non-members are taken then, or all its "
    "images if none has a label.",
)
@click.option(
    "--attacks",
    metavar="NAME[@PRESET],...",
    help="The attacks that count, chosen before their scores are seen; the fewer, the less is paid for looking at "
    f"several.  [default: all of RUN, else those of {NAMED} that can be run]",
)
@click.option(
    "--alpha",
    type=click.FloatRange(0.0001, 0.5),
    default=0.05,
    show_default=True,
    help="Error rate at which a verdict is given.",
)
@click.option(
    "--draws",
    type=click.IntRange(min=0),
    default=100,
    show_default=True,
    metavar="N",
    help="Random sets of each size, to say how many images it takes; 0: none.",
)
@click.option(
    "--artifacts",
    type=click.IntRange(min=0),
    metavar="N",
    help="Save pictures behind the N highest, median and lowest scores in question, of attacks that have any.",
)
@click.option("--html", type=click.Path(path_type=Path), metavar="FILE", help="Write the audit as one page.")
@click.option(
    "--pictures",
    type=click.IntRange(min=0),
    metavar="N",
    default=12,
    show_default=True,
    help="Images in question on that page, those that stand out most; 0 keeps all images out of it.",
)
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="At most N images of each class.")
@click.option("--seed", type=click.IntRange(min=0), help="Noise seed.  [default: 0]")
@click.option("--device", metavar="NAME", help="torch device.  [default: cuda if there is one]")
@click.option("--dtype", type=click.Choice(["float32", "bfloat16", "float16"]), help="[default: float32]")
@click.option("--out", type=click.Path(path_type=Path), metavar="FOLDER", help="Run folder; resumed if it exists.")
@worker_options
@target_options
@attack_options
@plugin_files
@as_json
def command(
    run: Path | None,
    options: tuple[str, ...],
    files: tuple[Path, ...],
    as_json: bool,
    attacks: str | None,
    alpha: float,
    draws: int,
    suspects: str | None,
    html: Path | None,
    pictures: int,
    **given: Any,
) -> int:
    """Say whether a model was trained on images, as a set and one by one, with error rates.

    Needs images known to be unseen that are like those in question. RUN is a folder of `mia-bench run` with both; or
    name --target and --dataset, and they are run first.
    """
    from mia_bench.engine.audit import audit
    from mia_bench.engine.select import parse_options
    from mia_bench.errors import UsageError
    from mia_bench.plugins import Registry
    from mia_bench.report.audit import exit_status, show_audit

    target = take_target_options(given)
    given = {name: value for name, value in given.items() if value is not None}
    registry, parsed = Registry.load(files), parse_options(options)
    if run is not None:
        if clash := sorted([*given, *target.given, *(["suspects"] if suspects else [])]):
            what = f"--{clash[0].replace('_', '-')}"
            raise UsageError(what, f"{run} has been run already", "leave it out, or leave out RUN to run anew")
        found = audit(registry, run, parsed, attacks=attacks or "", alpha=alpha, draws=draws)
    else:
        if not {"target", "dataset"} & {*given} and not suspects:
            fix = "give a run folder, or --target MODEL --dataset folder:PATH"
            raise UsageError("mia-bench audit", "nothing to audit is named", fix)
        folder = _run(registry, attacks, suspects, given, target_options=target, options=parsed)
        found = audit(registry, folder, attacks=attacks or "", alpha=alpha, draws=draws)
    show_audit(found, as_json)
    if html:
        from mia_bench.report.audit_html import write_audit

        write_audit(html, found, registry, shlex.join(["mia-bench", *sys.argv[1:]]), pictures)
        click.echo(f"page: {html}", err=as_json)
    return exit_status(found)


def _run(registry: Any, attacks: str | None, suspects: str | None, given: dict[str, Any], **more: Any) -> Path:
    """Run the attacks; returns the run folder."""
    from mia_bench.engine.audited import audited
    from mia_bench.engine.prepare import RunOptions
    from mia_bench.engine.run import run_tasks
    from mia_bench.report.progress import reporter
    from mia_bench.report.text import printable

    given.setdefault("executor", "local")
    given["dataset"] = audited(registry, given.get("dataset"), given.get("target"), suspects)
    typed = shlex.join(["mia-bench", *sys.argv[1:]])
    wanted = RunOptions(attacks=attacks or CHEAP, artifacts_of="suspects", command=typed, **given, **more)
    with reporter(registry) as progress:
        result, *_ = run_tasks(registry, wanted)
    for sample, reason in list({f.sample: f.reason for f in result.failures}.items())[:SAID]:
        click.echo(printable(f"left out {sample!r}: {reason}"), err=True)
    return Path(progress.folder)
