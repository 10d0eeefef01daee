"""The record: what it refuses, and that it is strict JSON that reads back the same."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from mia_bench.metrics import Evaluation, Metric, evaluate


def metric(**changes: Any) -> Metric:
    fields: dict[str, Any] = {"value": 0.5, "low": 0.4, "high": 0.6, "level": 0.95, "status": "ok"}
    return Metric(**{**fields, **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"low": None}, "both ends of its interval"),
        ({"value": None}, "both ends of its interval"),
        ({"value": 0.7}, "does not hold the value"),
        ({"status": "undefined", "reason": "why"}, "neither value nor interval"),
        ({"status": "flagged"}, "needs a reason"),
        ({"value": None, "low": None, "high": None, "status": "undefined"}, "needs a reason"),
        ({"value": 50.0, "high": 60.0}, "less than or equal to 1"),
        ({"value": math.nan}, "finite number"),
        ({"threshold": math.nan}, "threshold is NaN"),
        ({"status": "fine"}, "status"),
        ({"colour": "red"}, "Extra inputs"),
    ],
)
def test_incomplete_or_impossible_metrics_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        metric(**changes)


def test_metrics_are_frozen() -> None:
    found: Any = metric()
    with pytest.raises(ValidationError, match="frozen"):
        found.value = 0.9


@pytest.mark.parametrize("threshold", [None, 1.5, math.inf, -math.inf])
def test_thresholds_survive_strict_json(threshold: float | None) -> None:
    text = metric(threshold=threshold).model_dump_json()
    assert "Infinity" not in text
    assert json.loads(text)["threshold"] == (str(threshold) if threshold and math.isinf(threshold) else threshold)
    assert Metric.model_validate_json(text).threshold == threshold


def test_an_evaluation_is_strict_json_and_reads_back_the_same() -> None:
    scores = np.array([0.0, math.inf, 2.0, -math.inf] * 300)
    member = np.array([True, True, False, False] * 300)
    found = evaluate(scores, member, calibration_threshold=math.inf, n_resamples=20)
    for text in (found.model_dump_json(), json.dumps(found.model_dump(), allow_nan=False)):
        json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
        assert Evaluation.model_validate_json(text) == found
