"""Scores to the rows of a table: metrics, thresholds, the standing beside blind."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from mia_bench.attack import Attack, Control
from mia_bench.engine.cost import Ledger
from mia_bench.engine.plan import Plan, behind
from mia_bench.engine.scored import Scored, Unscored, only_scored
from mia_bench.engine.verdicts import judged
from mia_bench.metrics import Suspects, best_threshold, evaluate, exceeding, transferred
from mia_bench.result import MEMBERSHIP, SUSPECTS, Row, Task


def make_rows(
    plan: Plan,
    attacks: Mapping[str, Attack],
    found: Mapping[str, Scored | Unscored],
    ledger: Ledger,
    task: Task,
) -> list[Row]:
    """One row for each planned attack and control.

    Args:
        plan: The run's plan.
        attacks: Label -> instance.
        found: Label -> its scores.
        ledger: What the measurements cost.
        task: What is compared.
    """
    samples, scored = plan.samples, only_scored(found)
    positive, negative = samples.sides(task)
    compared = {label: s.rows[(positive | negative)[s.rows]] for label, s in scored.items()}
    value = {label: dict(zip(s.rows.tolist(), s.values.tolist(), strict=True)) for label, s in scored.items()}
    rows: list[Row] = []
    for planned in plan.attacks:
        common = {"label": planned.label, "control": planned.control, "params": planned.params}
        common |= {"fingerprint": planned.fingerprint, "definition": planned.definition, "changed": planned.changed}
        if planned.caption == "required":
            common["uncaptioned"] = samples.captioned.count(False)
        scores = found[planned.label]
        if isinstance(scores, Unscored):
            rows.append(Row(**common, status="failed" if scores.failed else "empty", reason=scores.reason))
            continue
        kept = compared[planned.label]
        values = np.array([value[planned.label][i] for i in kept.tolist()], dtype=np.float64)
        calibrated, gap = scores.calibrated, scores.calibrated.record.reason
        if task != MEMBERSHIP:
            gap = gap or "a threshold calibrated for membership says nothing about memorisation"
        on = None if gap else (calibrated.values, calibrated.member)
        threshold = best_threshold(*on) if on else None
        evaluation = evaluate(
            values, positive[kept], calibration_threshold=threshold, calibration_reason=gap, classes=task.names
        )
        carried = transferred(values, positive[kept], on, reason=gap, classes=task.names)
        evaluation = evaluation.model_copy(update={"transferred": carried})
        rows.append(
            Row(
                **common,
                status="ok",
                n=len(kept),
                evaluation=evaluation,
                tags=scores.tags,
                fitted=scores.fitted,
                calibration=None if planned.control else calibrated.record,
                **ledger.price(*behind(planned, plan.attacks)),
            )
        )
    return judged(rows, scored, positive, negative, _baselines(plan, attacks))


def _baselines(plan: Plan, attacks: Mapping[str, Attack]) -> dict[str, list[str]]:
    """Attack -> controls that read no more than it does, whether or not they have scores."""
    found = {}
    for planned in plan.attacks:
        reads_captions = plan.uses_captions and planned.caption != "unused"
        controls = {label: one for label, one in attacks.items() if isinstance(one, Control)}
        found[planned.label] = [label for label, c in controls.items() if reads_captions or c.modality == "image"]
    return found


def count_suspects(plan: Plan, attack: Attack, found: Scored | Unscored) -> Suspects | None:
    """Samples of unknown membership above thresholds from known non-members, of the audit set if it has any."""
    if isinstance(found, Unscored):
        return None
    samples, rows = plan.samples, found.rows
    unknown, known = (side[rows] for side in samples.sides(SUSPECTS))
    if not known.any() and attack.meta.calibration == "unused":  # else it may be fitted on these
        known = (samples.calibrating & ~samples.is_member)[rows]
    return exceeding(found.values[unknown], found.values[known]) if unknown.any() and known.any() else None
