"""The runs of a folder, and finished runs beside each other."""

from __future__ import annotations

from collections.abc import Sequence

from mia_bench.engine.runs import Listed
from mia_bench.engine.seeds import only_seeds_differ, over_seeds
from mia_bench.engine.side_by_side import Difference, SideBySide
from mia_bench.report.formats import csv_text
from mia_bench.report.markdown import markdown, markdown_table
from mia_bench.report.seeds import seeds_markdown, seeds_text
from mia_bench.report.table import interval, title
from mia_bench.report.text import json_text, printable, table

NAMED = 3  # attacks shown of a run
NOTES = (
    "differences of AUC to run [1] with their 95 % interval, paired on the samples (DeLong); p adjusted for all "
    "differences of the table (Holm)",
    "intervals and p are over images: how another training of the same recipe would vary, they do not say",
)


def show_runs(runs: Sequence[Listed], as_json: bool) -> None:
    """Print a line for each run, or JSON."""
    if as_json:
        print(json_text([_record(run) for run in runs]))
        return
    rows = [
        [
            str(run.folder),
            run.dataset,
            run.target,
            "" if run.seed is None else run.seed,
            _some(run.attacks),
            f"{interval(run.best[1])} {run.best[0]}" if run.best else "",
            run.date[:16].replace("T", " "),
            run.state,
        ]
        for run in runs
    ]
    print(table(rows, ["run", "dataset", "target", "seed", "attacks", "best AUC [95 %]", "measured, UTC", "state"]))


def _some(labels: Sequence[str]) -> str:
    return ", ".join(labels[:NAMED]) + (f" and {len(labels) - NAMED} more" if labels[NAMED:] else "")


def _record(run: Listed) -> dict[str, object]:
    best = {"attack": run.best[0], "auc": run.best[1].model_dump(mode="json")} if run.best else None
    return {**vars(run), "folder": str(run.folder), "best": best}


def show_side_by_side(found: SideBySide, form: str) -> None:
    """Print runs beside each other as `text`, `md`, `csv` or `json`."""
    seeds = over_seeds(found.results) if only_seeds_differ(found.results) else None
    if form == "json":
        print(json_text(found.to_json() | ({"over_seeds": seeds.to_json()} if seeds else {})))
    elif form == "csv":
        print(_csv(found), end="")
    elif form == "md":
        body, headers = _table(found)
        print(markdown_table([[markdown(c) for c in row] for row in body], [markdown(h) for h in headers]) + "\n")
        print("\n".join(f"- {markdown(line)}" for line in _notes(found)))
        if seeds:
            print("\n" + seeds_markdown(seeds))
    else:
        body, headers = _table(found)
        print(table(body, headers) + "\n")
        print("\n".join(printable(line) for line in _notes(found)))
        if seeds:
            print("\n" + seeds_text(seeds))


def _table(found: SideBySide) -> tuple[list[list[str]], list[str]]:
    later = range(2, len(found.folders) + 1)
    paired = [i for i, why in zip(later, found.unpaired, strict=True) if not why]
    headers = ["attack", *(f"AUC [{i}]" for i in range(1, len(found.folders) + 1))]
    headers += [text for i in paired for text in (f"[{i}] − [1]", "p")]
    if paired:
        headers.append("")
    order = sorted(found.rows, key=lambda row: -max((_auc(r) for r in row.rows), default=0))
    order.sort(key=lambda row: any(r is not None and r.control for r in row.rows))
    body = []
    for row in order:
        line = [row.label, *("–" if not (r and r.evaluation) else interval(r.evaluation.auc) for r in row.rows)]
        compared = [row.differences[i - 2] for i in paired]
        line += [
            text for d in compared for text in (_difference(d), "–" if d.adjusted is None else f"{d.adjusted:.2g}")
        ]
        if paired:
            line.append(", ".join(dict.fromkeys(text for d in compared for text in (d.note, d.reason) if text)))
        body.append(line)
    return body, headers


def _auc(row: object) -> float:
    evaluation = getattr(row, "evaluation", None)
    return (evaluation.auc.value or 0.0) if evaluation else 0.0


def _difference(d: Difference) -> str:
    return "–" if d.value is None else f"{d.value:+.3f} [{d.low:+.3f}, {d.high:+.3f}]"


def _notes(found: SideBySide) -> list[str]:
    numbered = enumerate(zip(found.folders, found.results, strict=True), 1)
    said = [f"[{i}] {folder}: {title(result)}{_captions(result.captions)}" for i, (folder, result) in numbered]
    said += [f"[{i}] is not paired with [1]: {why}" for i, why in enumerate(found.unpaired, 2) if why]
    counts = {d.n for row in found.rows for d in row.differences if d.value is not None}
    if counts:
        said.append(f"pairs: {min(counts)}" + (f" to {max(counts)}" if len(counts) > 1 else "") + " samples")
        said += NOTES
    return said


def _captions(captions: str) -> str:
    return f"; captions {captions}" if captions != "true" else ""


def _csv(found: SideBySide) -> str:
    head = ["attack", "run", "n", "auc", "auc_low", "auc_high", "difference", "difference_low", "difference_high"]
    rows: list[list[object]] = []
    for row in found.rows:
        differences = (Difference(), *row.differences)
        for folder, own, d in zip(found.folders, row.rows, differences, strict=True):
            auc = own.evaluation.auc if own and own.evaluation else None
            numbers = [own.n if own else None, *((auc.value, auc.low, auc.high) if auc else (None,) * 3)]
            rows.append(
                [row.label, str(folder), *numbers, d.value, d.low, d.high, d.p_value, d.adjusted, d.note, d.reason]
            )
    return csv_text(rows, [*head, "p", "p_holm", "note", "reason"])
