"""`mia-bench leaderboard`."""

from __future__ import annotations

import os
from pathlib import Path

import click


@click.command(name="leaderboard")
@click.option(
    "--results",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("benchmarks/results"),
    show_default=True,
    help="Folder of recorded results, as `run --json` prints them.",
)
@click.option("--out", type=click.Path(path_type=Path), default=Path("leaderboard.md"), show_default=True)
@click.option("--check", is_flag=True, help="Write nothing; end with status 1 if the file is stale.")
def command(results: Path, out: Path, check: bool) -> int:
    """Write leaderboard.md from recorded results: one section for each dataset and target."""
    from mia_bench.errors import ExitStatus, UsageError, brief
    from mia_bench.report.leaderboard import leaderboard

    page = leaderboard(results, os.path.relpath(results, out.parent))
    if not check:
        try:
            out.write_text(page, encoding="utf-8")
        except OSError as error:
            raise UsageError(
                f"file {out}", error.strerror or brief(error), "give a path that can be written"
            ) from error
        click.echo(f"wrote {out}")
        return ExitStatus.OK
    if out.is_file() and out.read_text(encoding="utf-8") == page:
        return ExitStatus.OK
    fix = f"mia-bench leaderboard --results {results} --out {out}"
    click.echo(f"error: {out} is not what {results} gives\n  fix: {fix}", err=True)
    return ExitStatus.REGRESSED
