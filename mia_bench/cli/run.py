"""`mia-bench run`."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import click

from mia_bench.cli.options import (
    allow_origin,
    as_json,
    attack_options,
    calibrate_on,
    plugin_files,
    take_target_options,
    target_options,
    task_options,
    worker_options,
)
from mia_bench.errors import UsageError

MAX_ROWS = 65536  # every call is padded to its rows, so memory grows with them


@click.command(name="run")
@click.option(
    "--attacks",
    default="all",
    show_default=True,
    metavar="all|NAME[@PRESET],...|GLOB",
    help="Which attacks; `all` is each attack once, '*@*' every preset, 'all,*@*' both, NAME[ENCODER] one.",
)
@click.option(
    "--full",
    is_flag=True,
    help="Published settings, where `all` would take the cheaper preset that the dataset asks for.",
)
@click.option(
    "-k",
    "keyword",
    metavar="EXPR",
    help="Of those, keep what matches words of name, access and summary, joined by and, or, not.",
)
@click.option("--dataset", metavar="NAME[:ARG]", help="Samples to audit.  [default: the target's own, or fluent-emoji]")
@click.option(
    "--target",
    metavar="NAME|PATH|ID",
    help="Model under audit: a name, a folder, a weights file or a hub repository.  [default: the dataset's own]",
)
@target_options
@click.option(
    "--reference",
    metavar="NAME|PATH|ID",
    help="A model that never saw the samples, e.g. the one the target was tuned from; some attacks ask it too.",
)
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="At most N samples of each class.")
@click.option(
    "--calibration",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    metavar="FRACTION",
    help="Set apart this share of each class to calibrate on, where the dataset has no calibration set of its own; "
    "near-duplicates stay together.",
)
@click.option("--balance", is_flag=True, help="Cut the larger class of each split to the size of the smaller.")
@click.option(
    "--captions",
    default="true",
    metavar="CHOICE",
    help="What attacks take for captions: `true`, `null` (none), `neutral[:TEXT]` (one for all), `shuffled[:SEED]` "
    "within each split, `generated[:ENCODER]` (by blip, remembered).  [default: true]",
)
@click.option(
    "--controls",
    is_flag=True,
    help="Run attacks that read captions twice more: with a neutral caption for all, and with shuffled ones; says how "
    "much rests on captions.",
)
@click.option(
    "--split-seed",
    type=click.IntRange(min=0),
    metavar="N",
    help="Of these two.  [default: 0]",
)
@calibrate_on
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Noise seed.")
@click.option(
    "--seeds",
    type=click.IntRange(min=1),
    metavar="N",
    help="Run under N seeds from --seed on, each in a folder of its own, and print how much the noise moves.",
)
@click.option("--device", metavar="NAME", help="torch device.  [default: cuda if there is one]")
@click.option("--dtype", type=click.Choice(["float32", "bfloat16", "float16"]), default="float32", show_default=True)
@click.option(
    "--latent",
    type=click.Choice(["mode", "sample"]),
    default="mode",
    show_default=True,
    help="VAE posterior.",
)
@click.option(
    "--rows",
    type=click.IntRange(1, MAX_ROWS),
    metavar="N",
    help="Rows per network call; a call with fewer is padded to N.  [default: by model]",
)
@click.option(
    "--threads",
    type=click.IntRange(min=1),
    metavar="N",
    help="Network calls at once on a CPU.  [default: cores]",
)
@worker_options
@click.option(
    "--shard",
    metavar="i/N",
    help="Measure only the i-th of N equal shares of the samples; `mia-bench merge` joins them.",
)
@click.option(
    "--batch",
    type=click.IntRange(min=1),
    metavar="N",
    help="Samples per batch and shard.  [default: rows x threads]",
)
@click.option(
    "--compile",
    is_flag=True,
    help="Compile the denoiser's network with torch, which takes a while at first; scores stay within 1e-5.",
)
@click.option("--no-share", is_flag=True, help="Run equal queries again instead of sharing them.")
@click.option("--independent-noise", is_flag=True, help="Draw other noise for each attack.")
@click.option("--noise", type=click.Path(path_type=Path), metavar="FILE.npz", help="Replay recorded noise.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Run folder; resumed if it exists.  [default: runs/...]",
)
@click.option("-x", "--exitfirst", "fail_fast", is_flag=True, help="Stop at the first failing attack or sample.")
@click.option(
    "--artifacts",
    type=click.IntRange(min=0),
    default=0,
    metavar="N",
    help="Save the pictures that explain the N highest, median and lowest scores of each attack that has any.",
)
@allow_origin
@click.option("--collect-only", is_flag=True, help="Show what would run, and stop.")
@click.option("--dry-run", is_flag=True, help="Show what would run and how long it may take, and stop.")
@click.option(
    "--profile",
    is_flag=True,
    help="Show where the time went, and write profile.json and profile.trace.json (for ui.perfetto.dev) into the run "
    "folder. On a GPU each network call is waited for, which makes the run slower.",
)
@task_options
@attack_options
@plugin_files
@as_json
def command(
    files: tuple[Path, ...],
    options: tuple[str, ...],
    collect_only: bool,
    dry_run: bool,
    as_json: bool,
    no_share: bool,
    seeds: int | None,
    shard: str | None,
    executor: str | None,
    profile: bool,
    **given: Any,
) -> int:
    """Run attacks on a dataset and a target, and print the table.

    Whatever the run folder already holds is not measured again, so the same command resumes a run that was stopped.
    """
    from mia_bench.engine.prepare import RunOptions, prepare
    from mia_bench.engine.run import foresee, run_tasks
    from mia_bench.engine.select import parse_options
    from mia_bench.plugins import Registry

    registry = Registry.load(files)
    typed = shlex.join(["mia-bench", *_without_share(sys.argv[1:])])
    wanted = RunOptions(
        share=not no_share,
        executor=executor or "local",
        options=parse_options(options),
        command=typed,
        target_options=take_target_options(given),
        **given,
    )
    if shard and (collect_only or dry_run):
        raise UsageError("--shard", "a plan is of the whole run", "leave one out: a shard takes its part of the time")
    if collect_only or dry_run:
        from mia_bench.engine.caption_controls import planned_controls
        from mia_bench.report.collect import show_plan

        prepared = prepare(registry, wanted)
        beside = planned_controls(registry, wanted, prepared)
        show_plan(prepared, as_json, foresee(prepared, wanted, beside) if dry_run else None, beside)
        if seeds and not as_json:
            print(f"as planned for seed {wanted.seed}, and as much for each of {seeds} seeds")
        return 0
    from mia_bench.report.progress import reporter
    from mia_bench.report.table import exit_status, show_results
    from mia_bench.trace import record

    listening = record(click.get_current_context().obj) if profile else nullcontext()
    if shard:
        from mia_bench.engine.run import run_shard
        from mia_bench.engine.shards import FOLDER, Shard
        from mia_bench.report.shards import show_shard

        share = Shard.parse(shard)
        if seeds:
            raise UsageError("--shard", "--seeds are several runs, each to be merged", "run the shards of one --seed")
        with listening as recorder, reporter(registry):
            done = run_shard(registry, wanted, share)
        status, folder = show_shard(share, done, as_json, registry.files), done[0][0] / FOLDER / share.name
    elif seeds:
        from mia_bench.engine.seeds import run_seeds
        from mia_bench.report.seeds import show_seeds

        with listening as recorder, reporter(registry) as progress:
            found, folders = run_seeds(registry, wanted, seeds)
        show_seeds(found, folders, as_json)
        status, folder = exit_status(*(result for one in found for result in one)), Path(progress.folder)
    else:
        with listening as recorder, reporter(registry) as progress:
            results = run_tasks(registry, wanted)
        show_results(results, as_json, progress.folder)
        status, folder = exit_status(*results), Path(progress.folder)
    if recorder:
        from mia_bench.report.profile import show_profile

        show_profile(recorder, folder, as_json)
    return status


def _without_share(words: Sequence[str]) -> list[str]:
    """The command of the whole run that a shard is of."""
    pairs = zip(["", *words], words, strict=False)
    return [word for before, word in pairs if before != "--shard" and word.partition("=")[0] != "--shard"]
