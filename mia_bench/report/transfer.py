"""What thresholds from the calibration set give, and what calibrated a run, in words."""

from __future__ import annotations

from collections.abc import Sequence

from mia_bench.metrics import Metric, Transferred
from mia_bench.result import MEMBERSHIP, Calibration, Result, Row

DEPARTS = {"too high": " ↑", "too low": " ↓"}
KNOWN = "known members of the target, which few attackers have"


def carried_rows(result: Result, rows: Sequence[Row]) -> list[Row]:
    """Those to show in a table of their own: with a threshold that was carried over from another run."""
    return [row for row in rows if result.shadow and row.evaluation and row.evaluation.asr_calibrated.value is not None]


def transfer_cells(rows: Sequence[Row]) -> tuple[list[list[object]], list[str]]:
    """Rows and headers: accuracy, TPR and FPR on the audit set at the calibration set's thresholds; see `carried_rows`.

    Results of earlier versions have the accuracy alone.
    """
    found = [row.evaluation for row in rows if row.evaluation]
    shown = dict.fromkeys(rate.max_fpr for e in found for rate in e.transferred if rate.tpr.value is not None)
    headers = ["attack, at the calibration set's threshold", "ASR"]
    headers += [f"{kind}, for {100 * max_fpr:g} %" for max_fpr in shown for kind in ("TPR", "FPR")]
    body: list[list[object]] = []
    for row, e in zip(rows, found, strict=True):
        rates = {rate.max_fpr: rate for rate in e.transferred}
        each = [rates.get(max_fpr) for max_fpr in shown]
        cells = [t for r in each for t in ((share(r, r.tpr), share(r, r.fpr, True)) if r else ("–", "–"))]
        body.append([row.label, _percent(e.asr_calibrated), *cells])
    return body, headers


def share(rate: Transferred, metric: Metric, with_mark: bool = False) -> str:
    """`3.1 [1.2, 6.0]` in percent, marked ! where the threshold is unsteady, and an FPR that departs by an arrow."""
    if metric.value is None:
        return "–"
    mark = DEPARTS.get(rate.holds or "", "") if with_mark else ""
    return _percent(metric) + mark + (" !" if metric.status == "flagged" and not with_mark else "")


def _percent(metric: Metric) -> str:
    if metric.value is None:
        return "–"
    return f"{metric.value:.1%} [{metric.low:.1%}, {metric.high:.1%}]".replace("%", "")


def transfer_legend(result: Result) -> list[str]:
    """What the reader of that table must know."""
    rows = carried_rows(result, result.rows)
    if not rows:
        own = any(row.calibration and row.calibration.source == "own" for row in result.rows)
        return ["`report RUN --details` has the rates at the calibration set's thresholds"] if own else []
    said = [
        "for 1 %: at the threshold with the largest TPR that at most 1 % of the calibration non-members pass; its TPR "
        "and FPR on the audit set in percent, with exact intervals that take it for fixed"
    ]
    rates = [rate for row in rows if row.evaluation for rate in row.evaluation.transferred]
    if any(rate.holds == "too high" for rate in rates):
        said.append("↑ more false positives than chance explains: the threshold does not hold on this target and set")
    if any(rate.holds == "too low" for rate in rates):
        said.append("↓ fewer false positives than chance explains: the threshold is too strict on this target and set")
    return said + untold(rates)


def untold(rates: Sequence[Transferred]) -> list[str]:
    """Why there is no threshold for some false-positive rate."""
    reasons = dict.fromkeys((rate.max_fpr, rate.tpr.reason) for rate in rates if rate.tpr.value is None)
    return [f"no threshold for {100 * max_fpr:g} %: {reason}" for max_fpr, reason in reasons]


def calibration_lines(result: Result) -> list[str]:
    """What the rows were calibrated on."""
    found = [row.calibration for row in result.rows if row.calibration]
    used = [one for one in found if one.source != "none"]
    if not used or result.task != MEMBERSHIP:
        return []
    counts = f"{_range([c.n_members for c in used])} members and {_range([c.n_nonmembers for c in used])} non-members"
    if result.shadow is None:
        return [f"calibrated on the run's own calibration set, {counts}: {KNOWN}"]
    other = result.shadow
    what = f"{counts} of {other.dataset} as {other.target} ({other.target_fingerprint[:12]}) has them"
    kind = f"a shadow model, {what}" if used[0].source == "shadow" else f"{KNOWN}, {what}"
    left = f"; {_range([c.left_out for c in used])} left out, as this run audits them too" if used[0].left_out else ""
    return [f"calibrated on {other.run}: {kind}{left}"]


def uncalibrated_lines(result: Result) -> list[str]:
    """Rows that another run could not calibrate, and why."""
    if result.shadow is None:
        return []
    reasons: dict[str, list[str]] = {}
    for row in result.rows:
        if row.status == "ok" and row.calibration and row.calibration.reason:
            reasons.setdefault(row.calibration.reason, []).append(row.label)
    return [f"not calibrated {', '.join(labels)}: {reason}" for reason, labels in reasons.items()]


def calibration_text(calibration: Calibration | None) -> str:
    """What one row was calibrated on, short."""
    if calibration is None or calibration.source == "none":
        return "–"
    count = f"{calibration.n_members} + {calibration.n_nonmembers}"
    named = {"own": "own calibration set", "same target": "the target's, in another run", "shadow": "shadow model"}
    return f"{named[calibration.source]}, {count}"


def _range(counts: Sequence[int]) -> str:
    low, high = min(counts), max(counts)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"
