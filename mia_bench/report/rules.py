"""A run's scores by our rule and by those of published evaluators, side by side."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from mia_bench.engine.run import read_result
from mia_bench.engine.scores import StoredScores, read_scores
from mia_bench.errors import NothingError, UsageError
from mia_bench.metrics import Metric, Rates
from mia_bench.metrics.published_rules import RULES, TAILS, ByRule, by_rule
from mia_bench.report.formats import csv_text
from mia_bench.report.markdown import markdown, markdown_table
from mia_bench.report.table import ranked
from mia_bench.report.text import json_text, printable, table
from mia_bench.result import MEMBERSHIP, Row

HEADERS = ("attack", "rule", "AUC", "ASR", "TPR@1%FPR", "TPR@0.1%FPR", "carried over, 1 %", "carried over, 0.1 %")
SWAPPED = {"PFAMI", "CLiD"}  # hold-outs are the positives
NOTES = (
    "percent; the same scores in every line: only the rule differs. `ours` has 95 % intervals, papers print none",
    "ours: the largest TPR of all thresholds with FPR within the rate; ASR is the largest (TPR + TNR) / 2: optimistic",
    "`at`: the error rate that the threshold really has; in lines marked ‡ that is the share of members lost",
    "carried over: TPR / FPR on the audit set at a threshold from the calibration set, by CopyMark's rule",
)


@dataclass(frozen=True)
class Beside:
    """One attack by our rule, and by the others; these are empty, with the reason, where they do not exist."""

    row: Row
    rules: Mapping[str, ByRule]
    gap: str = ""


def besides(folder: Path) -> list[Beside]:
    """Every attack of a run folder that has scores.

    Raises:
        UsageError: It is a results file, which holds no scores.
        NothingError: No attack has an AUC.
        UnavailableError: The run cannot be read.
    """
    if not folder.is_dir():
        raise UsageError("--rules", f"{folder} is a results file, which holds no scores", "give the run folder")
    result, scores = read_result(folder), read_scores(folder)
    if result.task != MEMBERSHIP:
        raise UsageError("--rules", "the run's result is not of membership", f"`mia-bench score {folder}` writes that")
    rows = [row for row in ranked(result) if row.label in scores and not row.control]
    found = [_beside(row, scores[row.label]) for row in rows if row.evaluation and row.evaluation.auc.value is not None]
    if not found:
        raise NothingError("--rules", "no attack of the run was compared", "run on members and non-members")
    return found


def _beside(row: Row, scores: StoredScores) -> Beside:
    audit, calibration = (_of(scores, split) for split in ("audit", "calibration"))
    both = len(set(calibration[1])) == 2
    try:
        return Beside(row, by_rule(*audit, calibration if both else None))
    except ValueError as error:
        return Beside(row, {}, str(error))


def _of(scores: StoredScores, split: str) -> tuple[list[float], list[bool]]:
    """Scores and labels of the samples of a split whose membership is known."""
    rows = zip(scores.values.tolist(), scores.member, scores.split, strict=True)
    known = [(value, member) for value, member, own in rows if own == split and member is not None]
    return [value for value, _ in known], [member for _, member in known]


def show_rules(folder: Path, form: str) -> None:
    """Print them as `text`, `md`, `csv` or `json`."""
    found = besides(folder)
    if form == "json":
        print(json_text([_record(one) for one in found]))
    elif form == "csv":
        lines = [line for one in found for line in _lines(one)]
        print(csv_text(lines, [*HEADERS[:2], "auc", "asr", *_COLUMNS, "reason"]), end="")
    elif form == "md":
        body = [[markdown(cell) for cell in line] for one in found for line in _cells(one)]
        print(markdown_table(body, [markdown(h) for h in HEADERS]) + "\n")
        print("\n".join(f"- {markdown(note)}" for note in _notes(found)))
    else:
        print(table([line for one in found for line in _cells(one)], HEADERS) + "\n")
        print("\n".join(printable(note) for note in _notes(found)))


def _notes(found: Sequence[Beside]) -> list[str]:
    said = [*NOTES]
    if not any(rule.carried for one in found for rule in one.rules.values()):
        said[3] = "nothing is carried over: the run has no calibration set with both classes (theirs is a shadow set)"
    said += [f"{name}: {explanation(name)}" for name in RULES if any(one.rules for one in found)]
    return said + [f"{one.row.label} has no other rules: {one.gap}" for one in found if one.gap]


def explanation(rule: str) -> str:
    """What differs in a rule, in one line."""
    return " ".join(inspect.cleandoc(RULES[rule].__doc__ or "").split())


def _cells(one: Beside) -> list[list[str]]:
    e = one.row.evaluation
    assert e, "it is compared"
    oracle = e.asr_oracle.model_copy(update={"realised": None})
    lines = [[one.row.label, "ours", *map(_ours, (e.auc, oracle, e.tpr_at_1, e.tpr_at_01)), "", ""]]
    for name, rule in one.rules.items():
        mark = "‡" if name in SWAPPED else ""
        tails = [f"{_percent(rule.tails[rate].value)} at {_percent(rule.tails[rate].error)}{mark}" for rate in TAILS]
        carried = [_carried(rule.carried.get(rate)) for rate in TAILS]
        lines.append(["", name + mark, _percent(rule.auc), _percent(rule.asr), *tails, *carried])
    return lines


def _ours(metric: Metric) -> str:
    if metric.value is None:
        return "–"
    text = f"{_percent(metric.value)} [{_percent(metric.low)}, {_percent(metric.high)}]"
    return text + (f" at {_percent(metric.realised)}" if metric.realised is not None else "")


def _carried(at: Rates | None) -> str:
    return f"{_percent(at.tpr)} / {_percent(at.fpr)}" if at else ""


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.2f}"


def _record(one: Beside) -> dict[str, object]:
    e = one.row.evaluation
    assert e, "it is compared"
    ours = {name: getattr(e, name).model_dump(mode="json") for name in ("auc", "asr_oracle", "tpr_at_1", "tpr_at_01")}
    rules = [
        {
            "rule": name,
            "positives": "non-members" if name in SWAPPED else "members",
            "auc": rule.auc,
            "asr": rule.asr,
            "tails": {f"{rate:g}": asdict(point) for rate, point in rule.tails.items()},
            "carried": {f"{rate:g}": {"tpr": r.tpr, "fpr": r.fpr} for rate, r in rule.carried.items()},
            "differs": explanation(name),
        }
        for name, rule in one.rules.items()
    ]
    return {"attack": one.row.label, "ours": ours, "rules": rules, "reason": one.gap or None}


_COLUMNS = [f"{kind}_at_{rate:g}" for rate in TAILS for kind in ("tpr", "error", "carried_tpr", "carried_fpr")]


def _lines(one: Beside) -> list[list[object]]:
    """Lines of CSV; shares are 0 to 1."""
    e = one.row.evaluation
    assert e, "it is compared"
    own: list[object] = [one.row.label, "ours", e.auc.value, e.asr_oracle.value]
    for metric in (e.tpr_at_1, e.tpr_at_01):
        own += [metric.value, metric.realised, None, None]
    lines = [[*own, one.gap or None]]
    for name, rule in one.rules.items():
        line: list[object] = [one.row.label, name, rule.auc, rule.asr]
        for rate in TAILS:
            at = rule.carried.get(rate)
            line += [rule.tails[rate].value, rule.tails[rate].error, *((at.tpr, at.fpr) if at else (None, None))]
        lines.append([*line, None])
    return lines
