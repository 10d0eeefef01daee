"""The table of a run, for people and for machines."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath

from mia_bench.attack import PARTIAL
from mia_bench.errors import ExitStatus
from mia_bench.metrics import Metric
from mia_bench.report import verdicts
from mia_bench.report.controls import control_cells, control_notes
from mia_bench.report.text import json_text, printable, seconds_text, table
from mia_bench.report.transfer import (
    calibration_lines,
    carried_rows,
    transfer_cells,
    transfer_legend,
    uncalibrated_lines,
)
from mia_bench.result import MEMBERSHIP, Division, Result, Row

HEADERS = ("attack", "N", "AUC [95 % interval]", "TPR@1%FPR", "ASR*", "queries", "per image", "verdict", "")
RIGHT = (1, 5, 6)
METRICS = ("auc", "tpr_at_1", "tpr_at_01", "tnr_at_1", "tnr_at_01", "asr_oracle", "asr_calibrated")
SHORT = {PARTIAL: "partial spec"}  # tags that would make every row wider than a screen
SHOWN, LINES = 3, 12  # samples named for a reason; reasons printed


def show_results(results: Sequence[Result], as_json: bool, folder: str = "") -> None:
    """Print results of one run as tables with their notes, or as JSON: a list if there are several."""
    if as_json:
        records = [result.model_dump(mode="json") for result in results]
        print(json_text(records if len(records) > 1 else records[0]))
        return
    for result in results:
        _show_table(result)
    print("\n".join(dict.fromkeys(note for result in results for note in notes(result, folder))))
    if folder:
        print(printable(f"run folder: {folder}"))


def _show_table(result: Result) -> None:
    print(printable(title(result)) + "\n")
    tied = verdicts.marked(result)
    print(table([cells(row, row.label in tied) for row in ranked(result)], HEADERS, right=RIGHT) + "\n")
    if counted := [row for row in ranked(result) if row.suspects]:
        print(table(*suspect_cells(counted), right=(1, 2)) + "\n")
    if carried := carried_rows(result, ranked(result)):
        print(table(*transfer_cells(carried)) + "\n")
    if (beside := control_cells(result))[0]:
        print(table(*beside) + "\n")


def title(result: Result) -> str:
    """What was audited, in one line."""
    between = ", " if result.task == MEMBERSHIP else " against "
    counts = zip((result.n_members, result.n_nonmembers), result.task.names, strict=True)
    audit = between.join(f"{count} {name}" for count, name in counts)
    unknown = f", {result.n_unknown} of unknown membership" if result.n_unknown else ""
    how = "not measured yet" if result.unfinished else "left out"
    missing = f" ({result.n_left_out} more {how})" if result.n_left_out else ""
    beside = f" beside {result.reference}" if result.reference else ""
    samples = f"{audit}{unknown}{missing}"
    made = "imported scores" if result.sources else f"seed {result.seed}, {result.dtype}"
    return f"{result.dataset} on {result.target}{beside}: {samples}; {made}"


def ranked(result: Result) -> list[Row]:
    """Rows as they are shown: attacks by falling AUC, then controls."""
    return sorted(result.rows, key=lambda r: (r.control, -_auc(r), r.label))


def suspect_cells(rows: Sequence[Row]) -> tuple[list[list[object]], list[str]]:
    """Rows and headers: how many samples of unknown membership are above thresholds from known non-members."""
    found = [row.suspects for row in rows if row.suspects]
    headers = ["attack", "suspects", "non-members", *(f"above at {100 * r.max_fpr:g} % FPR" for r in found[0].rates)]
    body: list[list[object]] = [
        [
            row.label,
            one.n,
            one.n_nonmembers,
            *(f"{r.above}: {tail(r.share)}" if r.above is not None else "–" for r in one.rates),
        ]
        for row, one in zip(rows, found, strict=True)
    ]
    return body, headers


def notes(result: Result, folder: str = "") -> list[str]:
    """What a reader of the table must know; `folder` is where the scores are, if that is known."""
    return legend(result) + [printable(line) for line in control_notes(result)] + troubles(result, folder)


def legend(result: Result) -> list[str]:
    """What the table's figures mean, and what they cost."""
    ok = [r for r in result.rows if r.status == "ok"]
    said = imported_text(result)
    said += ["TPR@1%FPR in percent, with its interval, at the false-positive rate realised"]
    said += ["* largest accuracy over thresholds chosen on the audit set itself: optimistic"]
    shares = [rate.share for r in result.rows if r.suspects for rate in r.suspects.rates]
    tails = [m for r in ok if r.evaluation for m in (r.evaluation.tpr_at_1, *(c.tpr for c in r.evaluation.transferred))]
    if any(metric.status == "flagged" for metric in (*tails, *shares)):
        said.append("! few false positives behind the figure: too unsteady to rank by")
    if any("transductive" in r.tags for r in ok):
        said.append("transductive: scaled by the unlabelled audit scores, so a score depends on the other samples")
    if any(PARTIAL in r.tags for r in ok):
        said.append(f"{SHORT[PARTIAL]}: {PARTIAL}; `mia-bench describe NAME` says what is ours")
    if result.task != MEMBERSHIP:
        said.append("what attacks fit on a calibration set, they fit for membership; no threshold is carried over")
    if result.captions != "true" and not result.sources:
        said.append(captions_text(result.captions))
    if result.division:
        said.append(division_text(result.division))
    said += calibration_lines(result) + transfer_legend(result)
    if result.calibration:
        said.append(f"no threshold, scaler or weight could be calibrated: {result.calibration}")
    said += verdicts.legend(result)
    cost = result.cost
    if cost.asked:
        shared = "run together with other attacks' queries"
        if cost.executed is not None:
            shared = f"{cost.executed:,} run ({1 - cost.executed / cost.asked:.0%} shared)"
        said.append(f"{cost.asked:,} queries asked, {shared}, {seconds_text(cost.stages['measure'])} of measuring")
    return [printable(line) for line in said]


def troubles(result: Result, folder: str = "") -> list[str]:
    """What is missing of the table, and why; `folder` as for `notes`."""
    ok = [r for r in result.rows if r.status == "ok"]
    said = [f"skipped {label}: {reason}" for label, reason in result.skipped.items()]
    said += [f"{row.status} {row.label}: {row.reason}" for row in result.rows if row.status != "ok"]
    said += uncalibrated_lines(result) + _of_suspects(result)
    undefined = {r.evaluation.auc.reason for r in ok if r.evaluation and r.evaluation.auc.value is None}
    labelled = result.n_members + result.n_nonmembers + sum(bool(row.suspects) for row in result.rows)
    if undefined and result.n_unknown and not labelled:
        where = f"; their scores are in {folder}/scores.parquet" if folder else ""
        said.append(f"nothing could be compared: {result.n_unknown} samples have no label{where}")
        said.append("to label them: a column `member` in metadata.csv, or sub-folders members/ and nonmembers/")
    elif not _counted(result):
        said += [f"nothing could be compared: {reason}" for reason in sorted(filter(None, undefined))]
    said += [] if undefined else verdicts.missing(result)
    bare = [r for r in ok if r.uncaptioned]
    said += [f"{r.uncaptioned} samples without a caption left out of {r.label}" for r in bare]
    said += _left_out(result)
    said += [f"unfinished: {result.unfinished}"] if result.unfinished else []
    return [printable(line) for line in said]


def _counted(result: Result) -> bool:
    """Whether some attack has a count of suspects."""
    rows = [row.suspects for row in result.rows if row.suspects and not row.control]
    return any(rate.above is not None for one in rows for rate in one.rates)


def _of_suspects(result: Result) -> list[str]:
    """What a reader of their table must know."""
    found = [row.suspects for row in result.rows if row.suspects]
    if not found:
        return []
    said = [
        "above: samples of unknown membership over a threshold from known non-members alone, which another non-member "
        "passes with that chance at most; their share in percent, with its interval, at the rate among those known",
        "that is evidence as far as the non-members are like the suspects: where `blind` finds as many, they are not",
    ]
    said += [
        f"no count: {why}"
        for why in dict.fromkeys(r.share.reason for one in found for r in one.rates if r.above is None)
    ]
    without = [row.label for row in result.rows if row.status == "ok" and not row.control and not row.suspects]
    if without:
        said.append(
            f"no count of {', '.join(without)}: fitted on the only known non-members; put others beside the suspects"
        )
    return said


def _left_out(result: Result) -> list[str]:
    """Samples left out, those with one attack and reason in one line."""
    groups: dict[tuple[str, str], list[str]] = {}
    for failure in result.failures:
        groups.setdefault((failure.attack or "", failure.reason), []).append(failure.sample)
    lines = []
    for (attack, reason), samples in sorted(groups.items()):
        names = ", ".join(repr(s) for s in samples[:SHOWN]) + (", ..." if len(samples) > SHOWN else "")
        count = "1 sample" if len(samples) == 1 else f"{len(samples)} samples"
        lines.append(f"{count} left out{f' of {attack}' if attack else ''}: {reason} ({names})")
    return [
        *lines[:LINES],
        *([f"... and more; results.json lists all {len(result.failures)}"] if lines[LINES:] else []),
    ]


def imported_text(result: Result) -> list[str]:
    """What is known of imported scores, and what is not; nothing of a run that was measured."""
    if not result.sources:
        return []
    files = ", ".join(f"{PurePath(one.file).name} ({one.sha256[:12]})" for one in result.sources)
    return [
        f"imported from {files}: scores that another program computed, taken as they are",
        "not known of imported scores: the target's weights, the images, captions, noise, precision, queries and time",
    ]


def captions_text(captions: str) -> str:
    """What was taken for captions, in one line."""
    return f"captions: {captions}, in place of the samples' own"


def division_text(division: Division) -> str:
    """How the samples were chosen, in one line."""
    said = []
    if division.calibration is not None:
        share = f"{division.calibration:.3g} of each class, {division.members} + {division.nonmembers} in all"
        unread = f", {division.unread} images unread" if division.unread else ""
        said.append(f"calibration set: {share}, {division.together} near-duplicates kept together{unread}")
    if division.balance:
        said.append("the larger class of each split cut to the smaller")
    return f"{'; '.join(said)}; split seed {division.seed}, {division.digest[:12]}"


def show_details(result: Result) -> None:
    """Print every metric of every row."""
    body = []
    for row in result.rows:
        for name in METRICS if row.evaluation else ():
            metric: Metric = getattr(row.evaluation, name)
            realised = "" if metric.realised is None else f"{metric.realised:.2%}"
            why = metric.reason or metric.method or ""
            verdict = row.verdicts.get(name)
            shown = [verdict.verdict, verdicts.beside_blind(verdict)] if verdict else ["", ""]
            body.append([row.label, name, interval(metric, 4), realised, metric.status, why, *shown])
        for name, metric in [*_carried(row), *_above(row)]:
            realised = "" if metric.realised is None else f"{metric.realised:.2%}"
            why = metric.reason or metric.method or ""
            body.append([row.label, name, interval(metric, 4), realised, metric.status, why, "", ""])
    headers = [
        "attack",
        "metric",
        "value [95 %]",
        "realised",
        "status",
        "reason or method",
        "verdict",
        "minus best blind",
    ]
    print("\n" + table(body, headers))


def _carried(row: Row) -> list[tuple[str, Metric]]:
    rates = row.evaluation.transferred if row.evaluation else ()
    return [
        (f"{kind} carried over for {100 * rate.max_fpr:g} % FPR", metric)
        for rate in rates
        for kind, metric in (("tpr", rate.tpr), ("fpr", rate.fpr))
    ]


def _above(row: Row) -> list[tuple[str, Metric]]:
    rates = row.suspects.rates if row.suspects else ()
    return [(f"suspects above at {100 * rate.max_fpr:g} % FPR", rate.share) for rate in rates]


def interval(metric: Metric, digits: int = 3) -> str:
    """`0.512 [0.480, 0.544]`, or a dash where it is undefined."""
    if metric.value is None:
        return "–"
    return f"{metric.value:.{digits}f} [{metric.low:.{digits}f}, {metric.high:.{digits}f}]"


def percent(metric: Metric) -> str:
    """`3.1 [1.2, 6.0]`: percent with its interval."""
    if metric.value is None:
        return "–"
    return f"{metric.value:.1%} [{metric.low:.1%}, {metric.high:.1%}]".replace("%", "")


def tail(metric: Metric) -> str:
    """As `percent`, with the realised error rate; marked ! where too few errors stand behind it."""
    if metric.value is None:
        return "–"
    return f"{percent(metric)} at {100 * (metric.realised or 0):.2g}" + (" !" if metric.status == "flagged" else "")


def exit_status(*results: Result) -> int:
    """4 if an attack failed by its own fault, 3 if samples were left out, 5 if nothing could be compared, else 0."""
    return next(filter(None, map(_status, results)), ExitStatus.OK)


def _status(result: Result) -> int:
    if any(r.status == "failed" for r in result.rows):  # a table without its controls is no table
        return ExitStatus.BROKEN_PLUGIN
    rows = [r for r in result.rows if not r.control] or result.rows
    if not _counted(result) and all(r.evaluation is None or r.evaluation.auc.value is None for r in rows):
        return ExitStatus.UNAVAILABLE if any(r.status == "empty" for r in rows) else ExitStatus.NOTHING
    return ExitStatus.UNAVAILABLE if result.failures else ExitStatus.OK


def _auc(row: Row) -> float:
    return row.evaluation.auc.value or 0.0 if row.evaluation else -1.0


def cells(row: Row, tied: bool = False) -> list[object]:
    """A row of the table, under `HEADERS`; `tied` with the best attack."""
    if row.evaluation is None:
        return [row.label, 0, row.status, "", "", "", "", "", ""]
    e = row.evaluation
    marks = [f"{name}={row.params[name]}" for name in row.changed]
    marks += [SHORT.get(tag, tag) for tag in row.tags]
    marks += [f"{name} {value:.3g}" for name, value in row.fitted.items() if name not in row.changed]
    marks += [verdicts.TIED] if tied else []
    queries = "–" if row.queries is None else f"{row.queries:.4g}"
    price = "–" if row.seconds is None else seconds_text(row.seconds)
    return [
        row.label,
        row.n,
        interval(e.auc),
        tail(e.tpr_at_1),
        percent(e.asr_oracle),
        queries,
        price,
        verdicts.headline(row),
        ", ".join(marks),
    ]
