"""A finished run as one page that needs nothing else: no network, no script."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from math import floor
from pathlib import Path
from typing import Any

from markupsafe import Markup, escape

from mia_bench.engine.audited import NAME
from mia_bench.engine.finished import Finished, read_finished
from mia_bench.metrics import Evaluation, Metric, Transferred, clopper_pearson
from mia_bench.plugins import Registry
from mia_bench.report import figures
from mia_bench.report.controls import control_cells, control_notes
from mia_bench.report.gallery import best_rows, explained_walls, threshold_of, walls
from mia_bench.report.page import render, write
from mia_bench.report.published import HEADERS as PUBLISHED
from mia_bench.report.published import cells as published_cells
from mia_bench.report.published import notes as published_notes
from mia_bench.report.published import published
from mia_bench.report.table import (
    HEADERS,
    captions_text,
    cells,
    division_text,
    imported_text,
    interval,
    legend,
    ranked,
    suspect_cells,
    tail,
    title,
    troubles,
)
from mia_bench.report.text import printable, seconds_text
from mia_bench.report.transfer import calibration_lines, calibration_text, share, uncalibrated_lines, untold
from mia_bench.report.verdicts import blind_value, marked, matrix, word
from mia_bench.result import Result, Row

TOGETHER = figures.SERIES - 1  # curves of the first figure
SHOWN = 3  # attacks whose samples are shown
FAILURES = 200  # samples listed
UNKNOWN = "unknown"  # of imported scores


def write_report(path: Path, run: Path, registry: Registry, pictures: int = 6) -> None:
    """Write the page of a run.

    Args:
        path: The file; replaced if it exists.
        run: A run folder, or a results file.
        registry: All plugins, for the dataset.
        pictures: Samples of each kind; 0 for none.

    Raises:
        UnavailableError: There is no result, or it cannot be read.
        UsageError: The file cannot be written.
    """
    write(path, page(read_finished(run, registry, with_samples=pictures > 0), pictures))


def page(run: Finished, pictures: int = 6) -> str:
    """The page's text."""
    result, rows = run.result, ranked(run.result)
    number = {row.label: i for i, row in enumerate(rows, 1)}
    beside, tied = published(result), marked(result)
    calibration = [_calibrated(row) for row in rows if _comparable(row) and _metric(row, "asr_calibrated")]
    folder, start = str(run.folder) if run.folder else "", _start(rows)
    return render(
        "run.html",
        result=result,
        heading=title(result),
        summary=summary(result, folder),
        gaps=run.gaps,
        headers=HEADERS[:-1],
        rows=[_row(row, number[row.label], start, row.label in tied) for row in rows],
        start=start,
        chance=100 * (0.5 - start) / (1 - start),
        legend=legend(result),
        suspects=suspect_cells(counted) if (counted := [r for r in rows if r.suspects]) else None,
        overview=_overview(run, rows),
        costs=_costs(rows, number),
        panels=[_panel(run, row, f"p{number[row.label]}") for row in rows if _comparable(row) and not row.control],
        calibration=calibration,
        untold=dict.fromkeys(line for one in calibration for line in one["untold"]),
        calibrated_on=calibration_lines(result) + uncalibrated_lines(result),
        uncalibrated=result.calibration or "",
        controls=[row for row in rows if row.control],
        verdicts=matrix(rows),
        recaptioned=control_cells(result),
        recaptioned_notes=control_notes(result),
        samples=[(row, walls(run, row, pictures)) for row in best_rows(rows, SHOWN) if row.label in run.scores]
        if pictures
        else [],
        explained=[(label, explained_walls(run, label)) for label in dict.fromkeys(e.attack for e in run.explained)]
        if pictures
        else [],
        troubles=troubles(result, folder),
        failures=result.failures[:FAILURES],
        more_failures=max(0, len(result.failures) - FAILURES),
        published=(PUBLISHED, published_cells(beside, result), published_notes(beside, result)) if beside else None,
        provenance=provenance(run),
        command=command_of(run),
        interval=interval,
        coded=coded,
    )


def summary(result: Result, folder: str = "") -> list[str]:
    """The outcome in a sentence or two."""
    attacks = [row for row in result.rows if not row.control and _comparable(row)]
    if not attacks:
        said = ["No attack could be compared."]
        if result.dataset.startswith(f"{NAME}:") or any(row.suspects for row in result.rows):
            where = shlex.quote(folder) if folder else "RUN"
            said.append(
                "This run has images of unknown membership, which are no classes to tell apart. What can be said of "
                f"them is on another page: `mia-bench audit {where} --html FILE`."
            )
        return said
    best = max(attacks, key=_value)
    assert best.evaluation
    auc, (positives, negatives) = best.evaluation.auc, result.task.names
    value, low, high = (f"{100 * (x or 0):.1f}\u00a0%" for x in (auc.value, auc.low, auc.high))
    said = [
        f"The best of {len(attacks)} attacks is {best.label}: of one of the {positives} and one of the {negatives} it "
        f"tells which is which in {value} of cases (95\u00a0% interval {low} to {high}; chance is 50\u00a0%)."
    ]
    if result.sources:
        said += [f"{line[0].upper()}{line[1:]}." for line in imported_text(result)]
        said.append("No classifier that never asks the model was run beside them, for want of the images.")
        return said
    judged = [row for row in attacks if word(row) in ("clears blind", "does not clear blind", "at chance")]
    clearing = sum(word(row) == "clears blind" for row in judged)
    if all(word(row) == "at chance" for row in attacks):
        return [f"No attack of {len(attacks)} tells {positives} from {negatives}: all are at chance. {said[0]}"]
    if not any(row.control for row in result.rows) or not judged:
        said.append("No classifier that never asks the model was run beside them: add the control `blind`.")
        return said
    do = "does" if clearing == 1 else "do"
    others = "the others" if clearing else "they"
    rest = "" if clearing == len(judged) else f"; what {others} find may be the split, or chance"
    said.append(f"{clearing or 'None'} of {len(judged)} {do} better than classifiers that never ask the model{rest}.")
    return said


def _comparable(row: Row) -> bool:
    return row.evaluation is not None and row.evaluation.auc.value is not None


def _value(row: Row) -> float:
    return row.evaluation.auc.value or 0.0 if row.evaluation else 0.0


def _metric(row: Row, name: str) -> Metric | None:
    metric: Metric = getattr(row.evaluation, name)
    return None if metric.value is None else metric


def _row(row: Row, number: int, start: float, tied: bool) -> dict[str, Any]:
    """A line of the headline table, and its bar in percent of an axis that begins at `start`."""
    texts = [str(cell) for cell in cells(row, tied)]
    auc = row.evaluation.auc if row.evaluation else None
    ends = (auc.low, auc.value, auc.high, blind_value(row)) if auc else (None,) * 4
    low, value, high, blind = (None if x is None else 100 * (x - start) / (1 - start) for x in ends)
    bar = {"low": low, "value": value, "high": high, "blind": blind} if value is not None else None
    return {"number": number, "cells": texts[:-1], "marks": texts[-1], "bar": bar, "control": row.control}


def _start(rows: Sequence[Row]) -> float:
    """Where the axis of the bars begins: a tenth at or below every interval, 0.4 at most."""
    lows = [row.evaluation.auc.low for row in rows if row.evaluation and row.evaluation.auc.low is not None]
    return floor(10 * min([0.4, *lows])) / 10


def _curve(run: Finished, row: Row, colour: str, with_band: bool = True, dashed: bool = False) -> figures.Curve:
    assert row.evaluation
    found = None
    if with_band and (scores := run.scores.get(row.label)):
        members, others = scores.values[scores.audited(True)], scores.values[scores.audited(False)]
        if members.size and others.size:
            found = figures.band(members, others)
    return figures.Curve(row.evaluation.roc.fpr, row.evaluation.roc.tpr, colour, dashed, found)


def _overview(run: Finished, rows: Sequence[Row]) -> dict[str, Any] | None:
    """The best attacks and the best control in one figure."""
    best = best_rows(rows, TOGETHER)
    controls = sorted((r for r in rows if r.control and _comparable(r)), key=_value, reverse=True)[:1]
    if not best:
        return None
    named = [(row, f"c{i}") for i, row in enumerate(best, 1)]
    curves = [_curve(run, row, colour, with_band=i == 0) for i, (row, colour) in enumerate(named)]
    curves += [_curve(run, row, "soft", with_band=False, dashed=True) for row in controls]
    sizes = [(r.evaluation.n_members, r.evaluation.n_nonmembers) for r in best if r.evaluation]
    key = [(row.label, colour, interval(row.evaluation.auc)) for row, colour in named if row.evaluation]
    key += [(f"{row.label}, control", "soft", interval(row.evaluation.auc)) for row in controls if row.evaluation]
    svg = figures.roc(curves, max(a for a, _ in sizes), max(b for _, b in sizes), "overview")
    return {"svg": Markup(svg), "key": key, "band": best[0].label if curves[0].band else ""}


def _costs(rows: Sequence[Row], number: Mapping[str, int]) -> list[tuple[str, Markup]]:
    made = []
    kinds = (
        ("queries", "AUC against queries", "queries per image"),
        ("seconds", "AUC against time", "seconds per image"),
    )
    for field, name, label in kinds:
        points = []
        for row in rows:
            cost = getattr(row, field)
            if cost and _comparable(row) and row.evaluation and not row.control:
                auc = row.evaluation.auc
                points.append(figures.Point(number[row.label], cost, auc.value, auc.low, auc.high))  # type: ignore[arg-type]
        if points:
            made.append((name, Markup(figures.costs(points, label, field))))
    return made


def _panel(run: Finished, row: Row, name: str) -> dict[str, Any]:
    """One attack: its curve with the band, and its scores."""
    e = row.evaluation
    assert e
    made: dict[str, Any] = {"row": row, "name": name, "threshold": "", "histogram": ""}
    made["roc"] = Markup(figures.roc([_curve(run, row, "c1")], e.n_members, e.n_nonmembers, f"{name}roc", figures.LOW))
    if scores := run.scores.get(row.label):
        kinds = (("nonmember", False), ("member", True), ("unknown", None))
        groups = [(colour, scores.values[scores.audited(kind)]) for colour, kind in kinds]
        groups = [(colour, values) for colour, values in groups if values.size]
        decided = threshold_of(e)
        marks = [(decided[0], "-")] if decided else []
        if decided:
            made["threshold"] = f"threshold {decided[0]:.4g}, {decided[1]}"
        made["histogram"] = Markup(figures.histogram(groups, marks, f"{name}hist"))
        made["unknown"] = any(colour == "unknown" for colour, _ in groups)
    return made


def _calibrated(row: Row) -> dict[str, Any]:
    """Rates at the threshold from the calibration set, beside those of the best one of the audit set."""
    e = row.evaluation
    assert e
    return {"label": row.label, "carried": _rates(e.asr_calibrated, e.n_members, e.n_nonmembers),
            "oracle": _rates(e.asr_oracle, e.n_members, e.n_nonmembers),
            "on": calibration_text(row.calibration),
            "rates": [_carried(e, rate) for rate in e.transferred if rate.tpr.value is not None],
            "untold": untold(e.transferred)}  # fmt: skip


def _carried(e: Evaluation, rate: Transferred) -> dict[str, str]:
    """Rates at the threshold for one false-positive rate, beside the largest TPR of the audit set itself."""
    oracle = {0.01: e.tpr_at_1, 0.001: e.tpr_at_01}.get(rate.max_fpr)
    return {
        "rate": f"{100 * rate.max_fpr:g} % FPR",
        "threshold": "–" if rate.tpr.threshold is None else f"{rate.tpr.threshold:.4g}",
        "tpr": share(rate, rate.tpr),
        "fpr": share(rate, rate.fpr, with_mark=True),
        "oracle": tail(oracle) if oracle else "",
    }


def _rates(metric: Metric, n_members: int, n_nonmembers: int) -> dict[str, str]:
    """Balanced accuracy with its interval, and the two rates behind it with theirs (exact, of counts)."""
    assert metric.value is not None and metric.count is not None
    fpr = metric.count / n_nonmembers
    found = round((2 * metric.value - 1 + fpr) * n_members)
    low, high = clopper_pearson(found, n_members)
    below, above = clopper_pearson(metric.count, n_nonmembers)
    return {
        "threshold": "–" if metric.threshold is None else f"{metric.threshold:.4g}",
        "accuracy": f"{metric.value:.1%} [{metric.low:.1%}, {metric.high:.1%}]",
        "tpr": f"{found / n_members:.1%} [{low:.1%}, {high:.1%}]",
        "fpr": f"{fpr:.1%} [{below:.1%}, {above:.1%}]",
    }


def command_of(run: Finished) -> tuple[str, str]:
    """The command that reproduces the run, and what is to be known of it."""
    if run.plan and run.plan.command:
        return run.plan.command, ""
    result = run.result
    if result.sources:
        return shlex.join(["mia-bench", "import", *(s.file for s in result.sources)]), "with the options of that import"
    attacks = ",".join(row.label for row in result.rows)
    parts = ["mia-bench", "run", "--dataset", result.dataset, "--target", result.target, "--attacks", attacks]
    parts += ["--seed", str(result.seed), "--dtype", result.dtype, "--latent", result.latent]
    parts += ["--reference", result.reference] if result.reference else []
    parts += ["--captions", result.captions] if result.captions != "true" else []
    return shlex.join(parts), "as far as the result tells: --limit, -o and how the target was loaded are not in it"


def provenance(run: Finished) -> list[tuple[str, str]]:
    """What made the numbers."""
    result = run.result
    said = [
        ("dataset", f"{result.dataset}, revision {result.dataset_revision or 'not named'}"),
        ("samples", result.samples_hash),
        ("split", division_text(result.division) if result.division else ""),
        ("calibrated on", _json(result.shadow.model_dump(mode="json")) if result.shadow else ""),
        ("captions", captions_text(result.captions) if result.captions not in ("true", UNKNOWN) else ""),
        ("target", f"{result.target} ({result.target_kind}), {result.target_fingerprint}"),
        ("loaded with", _json(result.target_options)),
        ("target's files", _json(result.target_facts)),
        ("reference", f"{result.reference}, {result.reference_fingerprint}" if result.reference else ""),
        *(("imported from", f"{one.file}, sha256 {one.sha256}") for one in result.sources),
        (
            "noise",
            f"{result.noise}, seed {UNKNOWN if result.seed is None else result.seed}"
            + (", other for each attack" if result.independent_noise else ""),
        ),
        ("precision", f"{result.dtype}, latent by {result.latent}"),
        ("attacks", "; ".join(f"{r.label} {r.fingerprint[:12]} {_json(r.params)}" for r in result.rows)),
        ("time spent", ", ".join(f"{stage} {seconds_text(s)}" for stage, s in result.cost.stages.items())),
    ]
    for made in result.environments:
        libraries = {"mia-bench": made.get("mia_bench"), "Python": made.get("python"), **made.get("libraries", {})}
        commit = (
            f"; commit {made['commit']}" + (" with local changes" if made.get("dirty") else "")
            if made.get("commit")
            else ""
        )
        said.append(("made with", ", ".join(f"{name} {version}" for name, version in libraries.items()) + commit))
        said.append(("device", _json(made.get("device", {}))))
    return [(name, text) for name, text in said if text]


def coded(text: str) -> Markup:
    """Escaped text in which what stands between backticks is set as code."""
    parts = [escape(printable(part)) for part in text.split("`")]
    return Markup().join(Markup("<code>{}</code>").format(part) if i % 2 else part for i, part in enumerate(parts))


def _json(content: Any) -> str:
    return json.dumps(content, sort_keys=True, default=str, ensure_ascii=False) if content else ""
