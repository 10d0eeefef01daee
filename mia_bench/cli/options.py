"""Options that several subcommands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

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


attack_options: Decorator = click.option(
    "-o",
    "options",
    multiple=True,
    metavar="ATTACK.PARAMETER=VALUE",
    help="Set a parameter, e.g. -o clid.alpha=0.9 or -o clid.t=440,450. Repeatable.",
)
