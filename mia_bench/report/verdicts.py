"""Verdicts in words: what rows show beside chance, blind controls and the best attack."""

from __future__ import annotations

from collections.abc import Sequence

from mia_bench.engine.recorded import BLIND
from mia_bench.metrics import Gap, Metric, Verdict
from mia_bench.metrics.verdict import ALPHA, JUDGED
from mia_bench.result import Result, Row

NAMES = {"auc": "AUC", "tpr_at_1": "TPR@1%FPR", "tpr_at_01": "TPR@0.1%FPR", "asr_calibrated": "ASR, calibrated"}
LEGEND = {
    "clears blind": "better than chance and than every classifier that reads what the attack reads and never asks the "
    "target (`blind`), on the same samples (paired; p < 0.05 after Holm over the attacks)",
    "does not clear blind": "not shown to be better than such a classifier, or than chance: the split may be what is "
    "measured",
    "at chance": "its interval holds what a score that knows nothing gives",
    "too few samples": "no verdict at this size",
    "no blind baseline": "not at chance, with nothing to hold it against",
}
TIED = "≈ best"


def word(row: Row, name: str = "auc") -> str:
    """The verdict on one metric, or nothing."""
    found = row.verdicts.get(name)
    return found.verdict if found else ""


def headline(row: Row) -> str:
    """The verdict on the AUC, and that on TPR@1%FPR where there are samples for one and it is another."""
    if row.control:
        return "control"
    auc, tail = word(row), word(row, "tpr_at_1")
    other = f"; TPR@1%FPR {tail}" if tail not in ("", "too few samples", auc) else ""
    return auc + other


def blind_value(row: Row, name: str = "auc") -> float | None:
    """What the best blind baseline gives on the row's samples."""
    metric: Metric | None = getattr(row.evaluation, name) if row.evaluation else None
    found = row.verdicts.get(name)
    if metric is None or metric.value is None or not found or not found.blind or found.blind.value is None:
        return None
    return metric.value - found.blind.value


def tied(row: Row) -> bool:
    """Whether the AUC cannot be told from that of the best attack."""
    gap = row.behind.get("auc")
    return gap is not None and (gap.adjusted is None or gap.adjusted >= ALPHA)


def marked(result: Result) -> set[str]:
    """Labels to mark as tied with the best attack; none where that one itself is at chance, or has no verdict."""
    best = next((gap.against for row in result.rows if (gap := row.behind.get("auc"))), None)
    leading = next((row for row in result.rows if row.label == best), None)
    if leading is None or word(leading) in ("at chance", "too few samples", ""):
        return set()
    return {row.label for row in result.rows if tied(row)}


def legend(result: Result) -> list[str]:
    """A line for each verdict that is given in the table, and for the mark."""
    words = {v.verdict for row in result.rows for v in row.verdicts.values()}
    shown = {word(row, name) for row in result.rows for name in ("auc", "tpr_at_1")} & words
    said = [f"{name}: {text}" for name, text in LEGEND.items() if name in shown and name != "too few samples"]
    if marked(result):
        best = next(gap.against for row in result.rows if (gap := row.behind.get("auc")))
        said.append(
            f"{TIED}: its AUC cannot be told from the largest, that of {best} (paired on the samples, adjusted p at "
            f"least {ALPHA})"
        )
    return said + without_pairs(result)


def without_pairs(result: Result) -> list[str]:
    """What is to be said of a result that an earlier version recorded."""
    if not any(v.blind and v.blind.against == BLIND for row in result.rows for v in row.verdicts.values()):
        return []
    return [
        "recorded without scores: attacks and blind baselines are compared as if on other samples, which is stricter"
    ]


def missing(result: Result) -> list[str]:
    """Why attacks could not be compared with a blind baseline."""
    reasons = [
        v.reason for row in result.rows for v in row.verdicts.values() if v.verdict == "no blind baseline" and v.reason
    ]
    return [f"no blind baseline: {reason}" for reason in dict.fromkeys(reasons)]


def matrix(rows: Sequence[Row]) -> tuple[list[list[str]], list[str]]:
    """A line for each attack with its verdict on every metric, and the headers."""
    judged = [row for row in rows if row.verdicts]
    names = [name for name in JUDGED if any(name in row.verdicts for row in judged)]
    body = [
        [row.label, *(word(row, name) or "–" for name in names), beside_blind(row.verdicts.get("auc"))]
        for row in judged
    ]
    return body, ["attack", *(NAMES[name] for name in names), "AUC minus best blind"]


def beside_blind(verdict: Verdict | None) -> str:
    """`+0.12 [+0.05, +0.19], p = 0.001 (blind@caption)`; the p-value is adjusted, and over all baselines."""
    if verdict is None or verdict.blind is None:
        return "–"
    p = "" if verdict.adjusted is None else f", p = {verdict.adjusted:.2g}"
    return f"{gap_text(verdict.blind)}{p} ({verdict.blind.against})"


def gap_text(gap: Gap) -> str:
    """`+0.120 [+0.050, +0.190]`, or a dash."""
    return "–" if gap.value is None or gap.low is None else f"{gap.value:+.3f} [{gap.low:+.3f}, {gap.high:+.3f}]"
