"""`mia-bench report`."""

from __future__ import annotations

from pathlib import Path

import click

from mia_bench.cli.options import as_json, plugin_files

FORMATS = ("text", "md", "csv", "json")


@click.command(name="report")
@click.argument("runs", metavar="RUN...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--format", "form", type=click.Choice(FORMATS), default="text", show_default=True, help="What is printed."
)
@click.option("--html", type=click.Path(path_type=Path), metavar="FILE", help="Write a page with figures and samples.")
@click.option(
    "--pictures",
    type=click.IntRange(min=0),
    metavar="N",
    default=6,
    show_default=True,
    help="Samples of each kind on that page; 0 keeps all images of the dataset out of it.",
)
@click.option("--published", is_flag=True, help="What papers print for the nearest setting, beside this run's rows.")
@click.option("--rules", is_flag=True, help="The same scores by the rules of published evaluators, beside ours.")
@click.option("--details", is_flag=True, help="Every metric with its interval, status and reason.")
@plugin_files
@as_json
def command(
    runs: tuple[Path, ...],
    form: str,
    html: Path | None,
    pictures: int,
    published: bool,
    rules: bool,
    details: bool,
    files: tuple[Path, ...],
    as_json: bool,
) -> int:
    """Print the table of a finished run: its folder, or a file that `run --json` printed.

    Several runs are compared with the first, sample by sample where these are the same.
    """
    from mia_bench.errors import UsageError

    form = "json" if as_json else form
    if len(runs) > 1:
        from mia_bench.engine.side_by_side import side_by_side
        from mia_bench.report.runs import show_side_by_side

        single = {"--html": html, "--published": published, "--rules": rules, "--details": details}
        if one := next((name for name, on in single.items() if on), ""):
            raise UsageError(one, "it is of a single run", f"give one run: mia-bench report {runs[0]} {one}")
        show_side_by_side(side_by_side(runs), form)
        return 0
    from mia_bench.engine.run import read_result
    from mia_bench.report.formats import as_csv, as_markdown
    from mia_bench.report.published import show_published
    from mia_bench.report.table import show_details, show_results

    path = runs[0]
    if rules:
        from mia_bench.report.rules import show_rules

        show_rules(path, form)
        return 0
    result, folder = read_result(path), str(path) if path.is_dir() else ""
    if published:
        show_published(result, form)
    elif form == "md":
        click.echo(as_markdown(result, folder))
    elif form == "csv":
        click.echo(as_csv(result), nl=False)
    else:
        show_results([result], form == "json", folder)
        if details and form == "text":
            show_details(result)
    if html:
        from mia_bench.plugins import Registry
        from mia_bench.report.run_html import write_report

        write_report(html, path, Registry.load(files), pictures)
        click.echo(f"page: {html}", err=form != "text")
    return 0
