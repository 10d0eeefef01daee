"""Attacks with other captions than the samples' own (`run --controls`), in words."""

from __future__ import annotations

from collections.abc import Mapping

from mia_bench.metrics import Gap, Metric
from mia_bench.metrics.verdict import ALPHA
from mia_bench.report.verdicts import gap_text, word
from mia_bench.result import CaptionControl, Result, Row

NOTES = (
    "own − neutral: what the AUC loses when all samples have one caption; own − shuffled: when each has another's, of "
    "its split, members and non-members mixed (paired on the samples; p adjusted for all, Holm)",
    "what is lost went with the captions: the model knows them with their images, or captions of members differ, which "
    "`blind@caption` measures",
    "shuffled captions say nothing of membership: an AUC that stays above 0.5 comes of the images alone, of what the "
    "model knows of them or of how members look, which `blind@image` measures; for a score that is meant to rest on "
    "image and caption together, as CLiD's, that is a confound",
)


def control_cells(result: Result) -> tuple[list[list[object]], list[str]]:
    """Rows and headers: each attack with its own, neutral and shuffled captions; no rows if nothing was compared."""
    found: dict[str, dict[str, CaptionControl]] = {}
    for one in result.controls:
        if one.label:
            found.setdefault(one.label, {})[one.captions] = one
    choices = [c for c in ("neutral", "shuffled") if any(c in of for of in found.values())]
    headers = ["attack", "AUC, own captions"]
    headers += [text for c in choices for text in (f"AUC, {c}", f"own − {c}", "p")]
    rows = {row.label: row for row in result.rows}
    body: list[list[object]] = []
    for label, of in sorted(found.items(), key=lambda item: -(_value(rows.get(item[0])) or 0.0)):
        if not (row := rows.get(label)):
            continue
        line: list[object] = [label, _interval(row.evaluation.auc if row.evaluation else None)]
        for choice in choices:
            beside = of.get(choice)
            line += [_interval(beside.auc if beside else None), *_lost(beside.lost if beside else None)]
        body.append([*line, reading(row, of)])
    return body, [*headers, "reading"]


def reading(row: Row, of: Mapping[str, CaptionControl]) -> str:
    """What the differences of one attack say, in a few words."""
    if word(row) in ("at chance", "too few samples"):
        return f"{word(row)} with its own captions"
    lost = [one.lost for one in of.values() if one.lost and one.lost.adjusted is not None]
    if not lost:
        return next((one.reason for one in of.values() if one.reason), "")
    changed = [gap for gap in lost if gap.adjusted is not None and gap.adjusted < ALPHA]
    if not changed:
        return "not seen to rest on captions"
    if all((gap.value or 0.0) < 0 for gap in changed):
        return "does better with other captions"
    left = of["shuffled"].auc if "shuffled" in of else None
    if left is None or left.low is None or left.high is None:
        return "rests on captions"
    if left.low > 0.5:
        return "rests on captions in part, in part on images alone"
    return "rests on captions" if left.high >= 0.5 else "rests on captions; wrong ones turn it round"


def control_notes(result: Result) -> list[str]:
    """What a reader of that table must know."""
    body, _ = control_cells(result)
    said = list(NOTES) if body else []
    reasons = {
        (one.captions, one.label, one.reason): f"{one.captions} captions{f', {one.label}' if one.label else ''}: "
        f"{one.reason}"
        for one in result.controls
        if one.reason
    }
    return said + list(reasons.values())


def _interval(metric: Metric | None) -> str:
    if metric is None or metric.value is None:
        return "–"
    return f"{metric.value:.3f} [{metric.low:.3f}, {metric.high:.3f}]"


def _lost(gap: Gap | None) -> list[str]:
    return ["–", "–"] if gap is None else [gap_text(gap), "–" if gap.adjusted is None else f"{gap.adjusted:.2g}"]


def _value(row: Row | None) -> float | None:
    return row.evaluation.auc.value if row and row.evaluation else None
