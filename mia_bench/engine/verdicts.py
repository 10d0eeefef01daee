"""Rows beside the blind controls and beside the best attack: paired on the very same samples."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from mia_bench.engine.scored import Scored
from mia_bench.metrics import Evaluation, Gap, Metric, Verdict, bootstrap_difference, exact_roc, paired_tprs, tpr_at_fpr
from mia_bench.metrics.delong import MIN_PER_CLASS, PairedDifference
from mia_bench.metrics.holm import holm
from mia_bench.metrics.intervals import Estimate
from mia_bench.metrics.verdict import (
    CHANCE,
    JUDGED,
    RATES,
    Case,
    auc_difference,
    chance_of,
    decisions,
    gap_of,
    verdicts,
)
from mia_bench.result import Row

BESIDE_BEST = ("auc", *RATES)
"""Metrics by which attacks are held against the best of them."""

N_RESAMPLES = 4000
"""Of the paired bootstrap: the least p-value is 0.0005, so that Holm can reject in a table of a hundred attacks."""


def judged(
    rows: Sequence[Row],
    scored: Mapping[str, Scored],
    positive: NDArray[np.bool_],
    negative: NDArray[np.bool_],
    baselines: Mapping[str, Sequence[str]],
) -> list[Row]:
    """Rows with their verdicts, and with what tells them from the best attack.

    Args:
        rows: Of one table, evaluated.
        scored: Label -> scores.
        positive: bool `(N,)`, of the plan's samples.
        negative: Likewise.
        baselines: Attack -> the controls that read what it reads.
    """
    attacks = [row.label for row in rows if not row.control and row.evaluation]
    table = _Table(rows, scored, positive, negative)
    reasons = {row.label: row.reason or row.status for row in rows if row.status != "ok"}
    there = {a: [control for control in baselines[a] if control in scored] for a in attacks}
    missing = {a: "; ".join(dict.fromkeys(reasons[c] for c in baselines[a] if c in reasons)) for a in attacks}
    wanted = [(label, other) for label in attacks for other in (CHANCE, *there[label])]
    wanted += [(label, best) for name in BESIDE_BEST if (best := table.best(name)) for label in attacks]
    table.draw(wanted)
    found: dict[str, dict[str, Verdict]] = defaultdict(dict)
    for name in JUDGED:
        cases = {label: table.case(name, label, there[label], missing[label]) for label in attacks}
        for label, verdict in verdicts({k: case for k, case in cases.items() if case}).items():
            found[label][name] = verdict
    behind: dict[str, dict[str, Gap]] = defaultdict(dict)
    for name in BESIDE_BEST:
        for label, gap in table.behind(name, attacks).items():
            behind[label][name] = gap
    updates = {row.label: {"verdicts": found[row.label], "behind": behind[row.label]} for row in rows}
    return [row.model_copy(update=updates[row.label]) for row in rows]


class _Table:
    """Scores of all rows, and differences between them.

    Args:
        rows: Evaluated.
        scored: Label -> scores.
        positive: bool `(N,)`.
        negative: bool `(N,)`.
    """

    def __init__(
        self,
        rows: Sequence[Row],
        scored: Mapping[str, Scored],
        positive: NDArray[np.bool_],
        negative: NDArray[np.bool_],
    ) -> None:
        self.evaluations = {row.label: row.evaluation for row in rows if row.evaluation and not row.control}
        self.positive = positive
        compared = positive | negative
        self.values: dict[str, NDArray[np.float64]] = {CHANCE: np.where(compared, 0.0, np.nan)}
        for label, one in scored.items():
            self.values[label] = np.full(len(positive), np.nan)  # of no sample, or one that is not compared
            kept = one.rows[compared[one.rows]]
            self.values[label][kept] = one.values[compared[one.rows]]
        # TPR of the samples themselves and of each resample: by metric and samples, by label.
        self.drawn: dict[tuple[str, bytes], dict[str, tuple[float, NDArray[np.float64]]]] = {}

    def metric(self, name: str, label: str) -> Metric:
        found: Metric = getattr(self.evaluations[label], name)
        return found

    def case(self, name: str, label: str, baselines: Sequence[str], missing: str) -> Case | None:
        """One metric of one attack beside its baselines; None where there is no such metric for want of a threshold."""
        metric, evaluation = self.metric(name, label), self.evaluations[label]
        if name == "asr_calibrated" and metric.value is None:
            return None
        differences = {other: self.difference(name, label, other) for other in (CHANCE, *baselines)}
        n_smaller = min(evaluation.n_members, evaluation.n_nonmembers)
        against = {} if metric.status != "ok" else differences
        return Case(metric, chance_of(name, evaluation.n_nonmembers), n_smaller, against, missing)

    def best(self, name: str) -> str | None:
        """The attack with the largest value, of those whose value may be leant on; the first by name of equals."""
        known = {label: self.metric(name, label) for label in sorted(self.evaluations)}
        sure = [label for label, m in known.items() if m.status == "ok" and self._enough(self.evaluations[label])]
        return max(sure, key=lambda label: known[label].value or 0.0, default=None)

    def behind(self, name: str, attacks: Iterable[str]) -> dict[str, Gap]:
        """The best attack's lead, for every other attack that can be compared."""
        best = self.best(name)
        others = [a for a in attacks if best and a != best and self.metric(name, a).status == "ok"]
        found = {a: self.difference(name, a, best) for a in others if best}
        tested = {a: one.p_value for a, one in found.items() if one.p_value is not None}
        # Any pair might have been looked at: which attack is the best is seen from the same samples.
        unseen = len(others) * (len(others) - 1) // 2
        adjusted = dict(zip(tested, holm([*tested.values(), *[1.0] * unseen]), strict=False))
        return {a: gap_of(best or "", one, adjusted.get(a)) for a, one in found.items()}

    def difference(self, name: str, a: str, b: str) -> PairedDifference:
        """One metric of attack `a` minus that of `b`, on the samples that both scored."""
        rows = self._both(a, b)
        member = self.positive[rows]
        if min(int(member.sum()), int((~member).sum())) < 2:
            return PairedDifference(Estimate.undefined("fewer than two samples of a class in both", 0.95), None)
        first, second = self.values[a][rows], self.values[b][rows]
        if name == "auc":
            return auc_difference(first, second, member)
        if name == "asr_calibrated":
            threshold = self.metric(name, a).threshold
            assert threshold is not None
            called = decisions(second, member) if b != CHANCE else second
            return auc_difference(first >= threshold, called, member)
        drawn = self.drawn.get((name, rows.tobytes()), {})
        if a not in drawn:
            return PairedDifference(Estimate.undefined("too few samples", 0.95), None)
        (ours, our_draws), (theirs, their_draws) = drawn[a], drawn[b]
        return bootstrap_difference(ours - theirs, our_draws - their_draws)

    def draw(self, pairs: Iterable[tuple[str, str]]) -> None:
        """Resample TPRs of all pairs that will be compared; those on the same samples share their resamples."""
        groups: dict[bytes, tuple[NDArray[np.int64], dict[str, None]]] = {}
        for a, b in pairs:
            if any(self.metric(name, a).status == "ok" for name in RATES):
                rows = self._both(a, b)
                groups.setdefault(rows.tobytes(), (rows, {}))[1].update({a: None, b: None})
        for key, (rows, labels) in groups.items():
            member, known = self.positive[rows], [label for label in labels if label != CHANCE]
            if not member.any() or member.all():
                continue
            scores = [self.values[label][rows] for label in known]
            curves = [exact_roc(values, member) for values in scores]
            drawn = paired_tprs(scores, member, [*RATES.values()], n_resamples=N_RESAMPLES)
            for name, rate in RATES.items():
                found = [tpr_at_fpr(curve, rate).value for curve in curves]
                self.drawn[name, key] = dict(zip(known, zip(found, drawn[rate], strict=True), strict=True))
                chance = chance_of(name, int((~member).sum()))
                self.drawn[name, key][CHANCE] = chance, np.array(chance)

    def _both(self, a: str, b: str) -> NDArray[np.int64]:
        return np.flatnonzero(~np.isnan(self.values[a]) & ~np.isnan(self.values[b]))

    @staticmethod
    def _enough(evaluation: Evaluation) -> bool:
        return min(evaluation.n_members, evaluation.n_nonmembers) >= MIN_PER_CLASS
