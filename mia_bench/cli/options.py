"""Options that several subcommands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from mia_bench.target import TargetOptions

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

plugin_files: Decorator = click.option(
    "-p",
    "--plugin",
    "files",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="FILE.py",
    help="Load a plugin from a file. Repeatable.",
)
as_json: Decorator = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")


def _origin(context: click.Context, option: click.Parameter, text: str | None) -> tuple[str, int] | None:
    if text is None:
        return None
    from mia_bench.errors import UsageError
    from mia_bench.fetch.guard import parse_origin

    try:
        return parse_origin(text)
    except ValueError as error:
        raise UsageError("--allow-origin", str(error), "write --allow-origin 127.0.0.1:8000") from error


allow_origin: Decorator = click.option(
    "--allow-origin",
    callback=_origin,
    metavar="HOST:PORT",
    help="The one origin from which images may be fetched though its address is private; all others are refused.",
)


def task_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """What the tables compare."""
    positives = click.option(
        "--positives",
        type=click.Choice(["members", "memorised"]),
        default="members",
        show_default=True,
        help="What to find; memorised images are sought among other members, and among non-members.",
    )
    negatives = click.option(
        "--negatives",
        type=click.Choice(["nonmembers", "members"]),
        help="Among what, if not among those that suit the positives.",
    )
    return positives(negatives(command))


def source_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Which weights a target has."""
    for option in reversed(
        [
            click.option("--revision", metavar="REV", help="Commit, tag or branch of the target's hub repository."),
            click.option(
                "--lora",
                multiple=True,
                metavar="PATH|ID[:SCALE]",
                help="Fuse a LoRA adapter into the target's weights. Repeatable.",
            ),
            click.option(
                "--allow-pickle",
                is_flag=True,
                help="Read pickled weights where there are no safetensors: tensors alone, no code is run.",
            ),
            click.option(
                "--config",
                metavar="PATH|ID",
                help="Pipeline whose configuration a single weights file goes by.  [default: as diffusers tells]",
            ),
        ]
    ):
        command = option(command)
    return command


def target_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """How a target is loaded; `take_target_options` makes the record."""
    for option in reversed(
        [
            click.option(
                "--offload", is_flag=True, help="Keep networks in main memory, layers visit the GPU: slow, small."
            ),
            click.option(
                "--resolution",
                type=click.IntRange(min=1),
                metavar="PX",
                help="Side of the images.  [default: by model]",
            ),
        ]
    ):
        command = option(command)
    return source_options(command)


def take_target_options(given: dict[str, Any]) -> TargetOptions:
    """The record of what `target_options` or `source_options` read, taken out of `given`."""
    from mia_bench.target import TargetOptions

    return TargetOptions(**{name: given.pop(name) for name in TargetOptions.model_fields if name in given})


def worker_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """What measures."""
    executor = click.option(
        "--executor",
        metavar="NAME",
        help="What measures: `local` is this machine, one process per visible GPU; `ray` is a Ray cluster.  "
        "[default: local]",
    )
    workers = click.option(
        "--workers",
        type=click.IntRange(min=1),
        metavar="N",
        help="Processes that measure at once, each with the target.  [default: GPUs, or 1]",
    )
    return executor(workers(command))


calibrate_on: Decorator = click.option(
    "--calibrate-on",
    type=click.Path(path_type=Path),
    metavar="RUN",
    help="Fit thresholds, scalers and classifiers on the labelled samples of this run, e.g. of a shadow model, in "
    "place of the calibration set.",
)
attack_options: Decorator = click.option(
    "-o",
    "options",
    multiple=True,
    metavar="ATTACK.PARAMETER=VALUE",
    help="Set a parameter, e.g. -o clid.alpha=0.9 or -o clid.t=440,450. Repeatable.",
)
