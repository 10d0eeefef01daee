"""Results of earlier versions: they stay readable, and what they hold decides what can be said of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mia_bench.metrics import Estimate, Metric, Verdict, newcombe
from mia_bench.metrics.verdict import CHANCE, JUDGED, Case, chance_of, unpaired, verdicts
from mia_bench.result import RESULT_VERSION, Result, Row

BLIND = "best blind baseline"  # version 1 does not name it


def read(content: Mapping[str, Any]) -> Result:
    """A result from its JSON.

    Version 1 kept the AUC of the best blind baseline and no scores, so its attacks are compared with that as if it had
    been measured on other samples. Of TPR and accuracy it kept no baseline: a verdict is given only where none is
    needed.

    Raises:
        ValueError: It is no result.
    """
    if content.get("schema_version") != 1:
        return Result.model_validate(content)
    rows = content.get("rows")
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError("rows: not a list of records")
    baselines = {row.get("label"): row.get("blind") for row in rows}
    stripped = [{name: value for name, value in row.items() if name != "blind"} for row in rows]
    result = Result.model_validate({**content, "schema_version": RESULT_VERSION, "rows": stripped})
    attacks = {row.label: row for row in result.rows if row.evaluation and not row.control}
    found: dict[str, dict[str, Verdict]] = {label: {} for label in attacks}
    for name in JUDGED:
        cases = {label: _case(name, row, baselines[label] or {}) for label, row in attacks.items()}
        for label, verdict in verdicts({label: case for label, case in cases.items() if case}).items():
            if name == "auc" or verdict.verdict in ("too few samples", "at chance"):
                found[label][name] = verdict
    judged = [row.model_copy(update={"verdicts": found.get(row.label, {})}) for row in result.rows]
    return result.model_copy(update={"rows": tuple(judged)})


def _case(name: str, row: Row, blind: Mapping[str, Any]) -> Case | None:
    e = row.evaluation
    assert e
    metric: Metric = getattr(e, name)
    if name == "asr_calibrated" and metric.value is None:
        return None
    chance, n_smaller = chance_of(name, e.n_nonmembers), min(e.n_members, e.n_nonmembers)
    against = {CHANCE: unpaired(metric, Estimate(chance, chance, chance, metric.level, ""))}
    baseline = blind.get("baseline")
    if name == "auc" and baseline is not None and n_smaller:
        ends = newcombe(float(baseline), e.n_members, e.n_nonmembers, metric.level)
        against[BLIND] = unpaired(metric, Estimate(float(baseline), *ends, metric.level, "newcombe"))
    return Case(metric, chance, n_smaller, against, str(blind.get("reason") or ""))
