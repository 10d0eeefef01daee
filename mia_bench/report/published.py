"""What papers print, beside a run's own rows; never among them.

`published.csv` has a line for each attack in each table of a source: numbers in percent as printed, what they are of,
and what is known to be wrong with them. Only attacks that are implemented here are in it.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from mia_bench.engine.label import Label
from mia_bench.report.formats import csv_text
from mia_bench.report.markdown import markdown, markdown_table
from mia_bench.report.table import percent, ranked, tail
from mia_bench.report.text import json_text, printable, table
from mia_bench.result import MEMBERSHIP, Result, Row

METRICS = {"auc": "AUC", "tpr_at_1": "TPR@1%FPR", "tpr_at_01": "TPR@0.1%FPR", "asr": "ASR"}
SETTINGS = {"realworld": "real-world", "overtrain": "over-training"}  # what a target's name says of its training
HEADERS = ("attack", "source", "of", "queries", *METRICS.values(), "")
NOTES = (
    "percent; papers' numbers as printed, without intervals, those of this run with 95 % intervals",
    "of all that papers print of an attack, the settings nearest to this run's; they differ in more than is said here",
    "ASR: ours is the largest accuracy over thresholds chosen on the audit set; papers choose theirs in various ways",
)


@dataclass(frozen=True)
class Printed:
    """One attack in one table of a source.

    Attributes:
        source: Authors, venue, year.
        table: Where in it.
        model: The target as the source has it; `target` is its name here, if it has one, `kind` pixel or latent.
        setting: `real-world` (few steps for each image), `over-training`, `pretraining` (a released model as it is),
            or empty.
        samples: The samples as the source has them; `dataset` is their name here, if they have one.
        label: Our name of the attack; `attack` is the source's.
        values: Metric -> percent as printed.
        queries: For each image, as the source counts.
        notes: What is known of it.
    """

    source: str
    table: str
    model: str
    target: str
    kind: str
    setting: str
    samples: str
    dataset: str
    label: str
    attack: str
    values: dict[str, str]
    queries: str
    notes: str

    @property
    def remarks(self) -> tuple[str, ...]:
        return tuple(self.notes.split("; ")) if self.notes else ()


@dataclass(frozen=True)
class Beside:
    """A row of the run, what papers print of its attack in the nearest settings, and what these share with the run."""

    row: Row
    printed: tuple[Printed, ...]
    same: tuple[str, ...]


@cache
def everything() -> tuple[Printed, ...]:
    """All that is known."""
    text = files("mia_bench.report").joinpath("published.csv").read_text(encoding="utf-8")
    return tuple(
        Printed(values={name: line.pop(name) for name in METRICS}, **line) for line in csv.DictReader(text.splitlines())
    )


def published(result: Result) -> list[Beside]:
    """For each row that papers have numbers of, those of the settings nearest to the run's.

    A setting is the nearer the more of these it shares, the first counting most: how the target was trained, the
    dataset, whether the target works on pixels or latents. Of equally near ones all are given, those of the same target
    first.
    """
    if result.task != MEMBERSHIP:
        return []
    found = []
    for row in ranked(result):
        label = Label.parse(row.label)
        shared = {i: _same(p, result) for i, p in enumerate(everything()) if _is(p.label, label)}
        if row.control:  # a blind number is of the dataset alone
            shared = {i: same for i, same in shared.items() if "dataset" in same}
        if shared and row.evaluation:
            best = max(shared.values(), key=_weight)
            near = [i for i, same in shared.items() if _weight(same) == _weight(best)]
            near.sort(key=lambda i: "target" not in shared[i])
            distinct: dict[
                tuple[str, ...], Printed
            ] = {}  # sources print the same numbers again, as base of an ablation
            for p in (everything()[i] for i in near):
                distinct.setdefault((p.source, p.attack, *p.values.values()), p)
            found.append(Beside(row, tuple(distinct.values()), tuple(n for n in best if n in _WEIGHTS)))
    return found


def _is(printed: str, label: Label) -> bool:
    """Whether a source's attack is this row: the preset counts where the source's has one."""
    name, _, preset = printed.partition("@")
    return name == label.name and (preset == label.preset or (not preset and not _own(label)))


def _own(label: Label) -> bool:
    """Whether some source has this very preset."""
    return any(p.label == f"{label.name}@{label.preset}" for p in everything())


_WEIGHTS = {"training": 4, "dataset": 2, "kind": 1}


def _weight(same: Sequence[str]) -> int:
    return sum(_WEIGHTS.get(name, 0) for name in same)


def _same(printed: Printed, result: Result) -> tuple[str, ...]:
    target, setting = result.target, _setting(result)
    common = {
        "training": bool(setting) and printed.setting == setting,
        "dataset": bool(printed.dataset) and printed.dataset in _datasets(result.dataset),
        "target": bool(printed.target) and printed.target == target,
        "kind": printed.kind == result.target_kind,
    }
    return tuple(name for name, is_common in common.items() if is_common)


def _setting(result: Result) -> str:
    """How the target was trained, as far as its name says so."""
    name = re.sub(r"[^a-z0-9]", "", result.target.lower())
    if said := next((setting for part, setting in SETTINGS.items() if part in name), ""):
        return said
    released = {p.target for p in everything() if p.setting == "pretraining"} - {""}
    return "pretraining" if result.target in released and "lora" not in result.target_options else ""


def _datasets(spec: str) -> set[str]:
    """What a dataset may be called in the list: its name without the collection's, and the set-up of a collection."""
    name, _, argument = spec.partition(":")
    setups = re.findall(r"(?:^|,)setup=([^,]+)", argument)
    return {name, name.removeprefix("clid-"), *setups}


def show_published(result: Result, form: str) -> None:
    """Print what papers say as `text`, `md`, `csv` or `json`."""
    found = published(result)
    if form == "json":
        print(json_text([_record(one) for one in found]))
    elif form == "csv":
        print(csv_text(list(_lines(found)), ["attack", *_COLUMNS, *METRICS]), end="")
    elif form == "md":
        body = [[markdown(cell) for cell in line] for line in cells(found, result)]
        print(markdown_table(body, [markdown(h) for h in HEADERS]) + "\n")
        print("\n".join(f"- {markdown(note)}" for note in notes(found, result)))
    else:
        if found:
            print(table(cells(found, result), HEADERS) + "\n")
        print("\n".join(printable(note) for note in notes(found, result)))


def cells(found: Sequence[Beside], result: Result) -> list[list[str]]:
    """Rows under `HEADERS`: each of the run's, and below it what papers print; letters stand for `remarks`."""
    letters = {remark: letter for letter, remark in remarks(found)}
    lines = []
    for one in found:
        e = one.row.evaluation
        assert e, "it is compared"
        own = [percent(e.auc), tail(e.tpr_at_1), tail(e.tpr_at_01), percent(e.asr_oracle)]
        queries = "" if one.row.queries is None else f"{one.row.queries:.4g}"
        shared = f"nearest: same {', '.join(one.same)}" if one.same else "nothing near"
        lines.append([one.row.label, "this run", f"{result.dataset} on {result.target}", queries, *own, shared])
        for p in one.printed:
            values = [p.values[name] or "–" for name in METRICS]
            setting = f", {p.setting}" if p.setting else ""
            marks = " ".join(letters[remark] for remark in p.remarks)
            said = f"{p.source}, {p.table}" + ("" if p.attack.lower() == p.label else f": {p.attack}")
            lines.append(["", said, f"{p.samples} on {p.model}{setting}", p.queries, *values, marks])
    return lines


def remarks(found: Sequence[Beside]) -> list[tuple[str, str]]:
    """What is known of the numbers shown, and the letter that stands for it: `a` to `z`, `aa` and so on."""
    texts = dict.fromkeys(remark for one in found for p in one.printed for remark in p.remarks)
    return [(_letter(i), text) for i, text in enumerate(texts)]


def _letter(i: int) -> str:
    return (_letter(i // 26 - 1) if i >= 26 else "") + chr(ord("a") + i % 26)


def notes(found: Sequence[Beside], result: Result) -> list[str]:
    """What a reader must know."""
    without = [row.label for row in ranked(result) if row.label not in {one.row.label for one in found}]
    missing = f"no published number known here of {', '.join(without)}"
    if result.task != MEMBERSHIP:
        missing = "the published numbers known here are of membership"
    known = [f"{letter}  {text}" for letter, text in remarks(found)]
    return [*known, *(NOTES if found else ()), *([missing] if without else ())]


_COLUMNS = ("source", "table", "model", "setting", "samples", "printed_as", "same", "queries", "notes")


def _lines(found: Sequence[Beside]) -> Iterator[list[object]]:
    for one in found:
        for p in one.printed:
            about = [p.source, p.table, p.model, p.setting, p.samples, p.attack, " ".join(one.same), p.queries, p.notes]
            yield [one.row.label, *about, *(float(p.values[m]) if p.values[m] else None for m in METRICS)]


def _record(one: Beside) -> dict[str, Any]:
    printed = [asdict(p) for p in one.printed]
    return {"label": one.row.label, "row": one.row.model_dump(mode="json"), "same": one.same, "published": printed}
