"""Runs that differ only in the seed of their noise, as one table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mia_bench.engine.seeds import OverSeeds, SeedRow, Spread, over_seeds
from mia_bench.report.markdown import markdown, markdown_table
from mia_bench.report.table import interval, title, troubles
from mia_bench.report.text import json_text, printable, table
from mia_bench.result import Result


def show_seeds(runs: Sequence[Sequence[Result]], folders: Sequence[Path], as_json: bool) -> None:
    """Print what several seeds gave: a table for each task, or JSON with the results of all.

    Args:
        runs: Results of each seed, one for each task.
        folders: Where they are.
        as_json: Whether JSON is wanted.
    """
    tasks = [over_seeds(results) for results in zip(*runs, strict=True)]
    if as_json:
        records = [
            {"over_seeds": found.to_json(), "results": [r.model_dump(mode="json") for r in found.results]}
            for found in tasks
        ]
        print(json_text(records if len(records) > 1 else records[0]))
        return
    for found in tasks:
        print(seeds_text(found) + "\n")
    print("\n".join(f"run folder: {printable(folder)}" for folder in folders))


def seeds_text(found: OverSeeds) -> str:
    """Title, table and notes; each run's own notes once."""
    first = found.results[0]
    head = f"{title(first).replace(f'seed {first.seed}', _seeds(found.seeds))}\n"
    said = notes(found)
    for result in found.results:
        said += [line for line in troubles(result) if line not in said]
    return "\n".join([printable(head), table(*cells(found)), "", *map(printable, said)])


def seeds_markdown(found: OverSeeds) -> str:
    """The same as Markdown."""
    body, headers = cells(found)
    lines = "\n".join(f"- {markdown(line)}" for line in notes(found))
    return markdown_table([[markdown(c) for c in row] for row in body], [markdown(h) for h in headers]) + f"\n\n{lines}"


def cells(found: OverSeeds) -> tuple[list[list[str]], list[str]]:
    """Rows and headers."""
    n, lowest = len(found.seeds), min(found.seeds)
    headers = ["attack", f"AUC, mean of {n}", "sd over noise", "min – max", f"95 % over images, seed {lowest}"]
    headers += ["TPR@1%FPR, mean ± sd", "ASR*, mean ± sd", ""]
    order = sorted(found.rows, key=lambda row: (row.control, -_mean(row), row.label))
    return [_cells(row, n) for row in order], headers


def _cells(row: SeedRow, n: int) -> list[str]:
    if not row.metrics:
        return [row.label, *["–"] * 6, row.reason]
    auc = row.metrics["auc"]
    some = f"{len(row.seeds)} of {n} seeds" if len(row.seeds) < n else ""
    return [
        row.label,
        "–" if auc.mean is None else f"{auc.mean:.3f}",
        "–" if row.fixed or auc.sd is None else f"{auc.sd:.4f}",
        "–" if row.fixed or auc.low is None else f"{auc.low:.3f} – {auc.high:.3f}",
        interval(auc.images).partition(" ")[2] or "–",
        _share(row, row.metrics["tpr_at_1"]),
        _share(row, row.metrics["asr_oracle"]),
        ", ".join(filter(None, ["control" if row.control else "", some])),
    ]


def _share(row: SeedRow, spread: Spread) -> str:
    if spread.mean is None:
        return "–"
    sd = "" if row.fixed or spread.sd is None else f" ± {100 * spread.sd:.1f}"
    return f"{100 * spread.mean:.1f}{sd}" + (" !" if spread.images.status == "flagged" else "")


def _mean(row: SeedRow) -> float:
    return row.metrics["auc"].mean or 0.0 if row.metrics else -1.0


def notes(found: OverSeeds) -> list[str]:
    """What a reader of the table must know."""
    said = [
        "over noise: the same images under other noise; over images: how other images of the same kind would vary. "
        "Neither says how another training of the same recipe would vary"
    ]
    if any(row.fixed for row in found.rows):
        said.append("– over noise: every seed gives the same numbers, as nothing is drawn")
    said.append("* largest accuracy over thresholds chosen on the audit set itself: optimistic")
    if any(s.images.status == "flagged" for row in found.rows for s in row.metrics.values()):
        said.append("! few false positives behind the figure: too unsteady to rank by")
    return said


def _seeds(seeds: Sequence[int]) -> str:
    run = list(seeds) == list(range(seeds[0], seeds[0] + len(seeds)))
    return f"seeds {seeds[0]} to {seeds[-1]}" if run else f"seeds {', '.join(map(str, seeds))}"
