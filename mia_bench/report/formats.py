"""A run's result as Markdown and as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from mia_bench.metrics import Gap, Metric
from mia_bench.metrics.transfer import RATES
from mia_bench.metrics.verdict import JUDGED
from mia_bench.report.controls import control_cells
from mia_bench.report.markdown import markdown, markdown_table
from mia_bench.report.table import HEADERS, METRICS, cells, notes, ranked, suspect_cells, title
from mia_bench.report.text import printable
from mia_bench.report.transfer import carried_rows, transfer_cells
from mia_bench.report.verdicts import marked
from mia_bench.result import Result, Row

CARRIED_FROM = ("calibrated_on", "calibration_members", "calibration_nonmembers")
CARRIED = ("tpr_carried_1", "fpr_carried_1", "tpr_carried_01", "fpr_carried_01")  # at the calibration set's threshold
PARTS = ("", "low", "high", "status", "realised")  # of each metric, a column each
GAP = ("other", "difference", "difference_low", "difference_high", "difference_p", "difference_p_holm")
VERDICT = ("verdict", *(f"blind_{part}" for part in GAP), "p", "p_holm")


def as_markdown(result: Result, folder: str = "") -> str:
    """Title, table and notes; `folder` is where the scores are, if that is known."""
    tied = marked(result)
    body = [cells(row, row.label in tied) for row in ranked(result)]
    parts = [f"## {markdown(title(result))}", _markdown_table(body, HEADERS)]
    if counted := [row for row in ranked(result) if row.suspects]:
        parts.append(_markdown_table(*suspect_cells(counted)))
    if carried := carried_rows(result, ranked(result)):
        parts.append(_markdown_table(*transfer_cells(carried)))
    if (beside := control_cells(result))[0]:
        parts.append(_markdown_table(*beside))
    return "\n\n".join([*parts, "\n".join(f"- {markdown(note)}" for note in notes(result, folder))])


def _markdown_table(rows: Sequence[Sequence[object]], headers: Sequence[str]) -> str:
    return markdown_table([[markdown(cell) for cell in row] for row in rows], [markdown(h) for h in headers])


def as_csv(result: Result) -> str:
    """A line for each attack and control, every metric in columns of its own; shares are 0 to 1, gaps are empty."""
    head = ["attack", "control", "status", "reason", "n", "members", "nonmembers"]
    head += ["queries", "backward", "seconds", *(f"{m}_{p}".rstrip("_") for m in METRICS for p in PARTS)]
    head += [*CARRIED_FROM, *(f"{m}_{p}".rstrip("_") for m in CARRIED for p in PARTS[:-1])]
    head += [f"{metric}_{part}" for metric in JUDGED for part in VERDICT] + [f"auc_behind_{part}" for part in GAP]
    return csv_text([_line(row) for row in ranked(result)], head)


def csv_text(rows: Sequence[Sequence[object]], headers: Sequence[str]) -> str:
    """CSV of numbers and texts; no text is taken for a formula by a spreadsheet."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(headers)
    writer.writerows([[_plain(cell) if isinstance(cell, str) else cell for cell in row] for row in rows])
    return file.getvalue()


def _plain(text: str) -> str:
    line = " ".join(printable(text).split())
    return f"'{line}" if line[:1] in ("=", "+", "-", "@") else line


def _line(row: Row) -> list[object]:
    e = row.evaluation
    line: list[object] = [row.label, row.control, row.status, row.reason, row.n]
    line += [e.n_members, e.n_nonmembers] if e else [None, None]
    line += [row.queries, row.backward, row.seconds]
    for name in METRICS:
        metric: Metric | None = getattr(e, name) if e else None
        line += (
            [metric.value, metric.low, metric.high, metric.status, metric.realised] if metric else [None] * len(PARTS)
        )
    on = row.calibration
    line += [on.source, on.n_members, on.n_nonmembers] if on else [None] * len(CARRIED_FROM)
    rates = {rate.max_fpr: rate for rate in e.transferred} if e else {}
    for max_fpr in RATES:
        for metric in (rates[max_fpr].tpr, rates[max_fpr].fpr) if max_fpr in rates else (None, None):
            line += [metric.value, metric.low, metric.high, metric.status] if metric else [None] * 4
    for name in JUDGED:
        found = row.verdicts.get(name)
        line += [found.verdict, *_gap(found.blind), found.p_value, found.adjusted] if found else [None] * len(VERDICT)
    return [*line, *_gap(row.behind.get("auc"))]


def _gap(gap: Gap | None) -> list[object]:
    return [gap.against, gap.value, gap.low, gap.high, gap.p_value, gap.adjusted] if gap else [None] * len(GAP)
