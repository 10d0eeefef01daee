"""Samples of a run as figures: those an attack is surest of, wrongest about, and least sure of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mia_bench.dataset import Sample
from mia_bench.engine.finished import Finished
from mia_bench.engine.scores import StoredScores
from mia_bench.errors import SampleError
from mia_bench.images import read_image
from mia_bench.metrics import Evaluation
from mia_bench.report.page import KINDS, SAID, short, thumbnail
from mia_bench.result import Row

CHANGED = "the dataset has another image or caption under this id now"
SMALL = 128  # px: there are many


@dataclass(frozen=True)
class Wall:
    """Figures of one kind, with a heading."""

    title: str
    items: list[dict[str, Any]]


def threshold_of(evaluation: Evaluation) -> tuple[float, str] | None:
    """Where an attack decides, and how that was chosen: on the calibration set, else on the audit set itself."""
    for metric, how in (
        (evaluation.asr_calibrated, "from the calibration set"),
        (evaluation.asr_oracle, "chosen on the audit set itself"),
    ):
        if metric.threshold is not None and np.isfinite(metric.threshold):
            return float(metric.threshold), how
    return None


def walls(run: Finished, row: Row, count: int) -> list[Wall]:
    """Samples of the audit set by one attack's scores, `count` of each kind."""
    scores = run.scores[row.label]
    members, others, unknown = (scores.audited(kind) for kind in (True, False, None))
    chosen = [
        ("Surest, and right: members with the highest scores", _highest(scores, members, count)),
        ("Most wrong: non-members with the highest scores", _highest(scores, others, count)),
        ("Most wrong: members with the lowest scores", _lowest(scores, members, count)),
        ("Surest, and right: non-members with the lowest scores", _lowest(scores, others, count)),
    ]
    decided = threshold_of(row.evaluation) if row.evaluation else None
    if decided:
        value, how = decided
        both = np.concatenate([members, others])
        near = both[np.argsort(np.abs(scores.values[both] - value), kind="stable")][:count]
        chosen.append((f"Least sure: nearest to the threshold {value:.4g}, {how}", near))
    if unknown.size:
        chosen.append(("Unknown membership, highest scores", _highest(scores, unknown, count)))
    return [Wall(title, [_item(run, scores, int(i), others) for i in rows]) for title, rows in chosen if rows.size]


def explained_walls(run: Finished, label: str) -> list[Wall]:
    """What an attack saved, sample by sample."""
    made = []
    for one in run.explained:
        if one.attack == label and one.pictures:
            items = [_picture(title, path) for title, path in one.pictures.items()]
            kind = SAID[one.member] if one.member is not None else "membership unknown"
            made.append(Wall(f"{one.rank}: {one.sample}, {kind}, score {one.score:.4g}", items))
    return made


def _highest(scores: StoredScores, rows: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    return rows[np.argsort(-scores.values[rows], kind="stable")][:count]


def _lowest(scores: StoredScores, rows: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    return rows[np.argsort(scores.values[rows], kind="stable")][:count]


def _item(run: Finished, scores: StoredScores, i: int, others: NDArray[np.int64]) -> dict[str, Any]:
    value, sample = float(scores.values[i]), (run.samples or {}).get(scores.ids[i])
    rest = others[others != i]
    item = {
        "id": scores.ids[i],
        "kind": KINDS[scores.member[i]],
        "where": f"{SAID[scores.member[i]]}, score {value:.4g}",
        "above": "",
        "caption": short(sample.caption) if sample else "",
        "image": "",
        "reason": "",
    }
    if rest.size:
        share = float((scores.values[rest] >= value).mean())
        whose = "other non-members" if rest.size < others.size else "non-members"
        item["above"] = f"{100 * share:.3g} % of {whose} score as high" if share else f"no {whose[:-1]} scores as high"
    return pictured(item, run, sample)


def pictured(item: dict[str, Any], run: Finished, sample: Sample | None) -> dict[str, Any]:
    """An item with its sample's picture, or with the reason why it has none."""
    if sample is None:
        return {**item, "reason": "cannot be opened" if run.samples is None else CHANGED}
    try:
        return {**item, "image": thumbnail(sample.open(), SMALL)}
    except SampleError as error:
        return {**item, "reason": error.why or error.what}


def _picture(title: str, path: Any) -> dict[str, Any]:
    item = {"id": title, "kind": "plain", "where": "", "above": "", "caption": "", "image": "", "reason": ""}
    try:
        return {**item, "image": thumbnail(read_image(path, title), SMALL)}
    except SampleError as error:
        return {**item, "reason": error.why or error.what}


def best_rows(rows: Sequence[Row], count: int) -> list[Row]:
    """The first `count` attacks of rows in the order of the table that have an AUC."""
    return [r for r in rows if not r.control and r.evaluation and r.evaluation.auc.value is not None][:count]
