"""The gate: a finished run against a recorded one, two questions kept apart.

The same target asked in the same way has to give the same scores, sample by sample: what differs is the program.
Another target on the same samples is asked whether it leaks more, by paired tests.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

import numpy as np

from mia_bench.engine.comparable import why_incomparable
from mia_bench.engine.label import Label
from mia_bench.engine.paired import FinishedRun, finished_run, known
from mia_bench.engine.plan import PlannedAttack
from mia_bench.errors import ExitStatus, UsageError
from mia_bench.metrics.gate import (
    METRICS,
    POWER,
    Change,
    Direction,
    Tested,
    change,
    departures,
    displacements,
    judged_together,
)
from mia_bench.plugins import suggest
from mia_bench.result import Row

Question = Literal["same scores", "leakage"]
Verdict = Literal["same", "moved", "held", "rose", "dropped", "no scores", "not compared", "no baseline"]
REGRESSED = ("moved", "rose", "dropped", "no scores")
FITTED = 10  # times the tolerance, where scales or weights are fitted: a solver stops here or there
RANKS = 0.25  # of the samples that a trained classifier's score may pass: 0.15 were on other processors' arithmetic
WORST = 5  # samples named of an attack whose scores moved


@dataclass(frozen=True)
class Gate:
    """What to compare, and what to tolerate.

    Attributes:
        metrics: Gated where the target is another; of `mia_bench.metrics.gate.METRICS`.
        fail_on: In which direction a metric must not move.
        margin: How far it may move all the same.
        alpha: Chance of a false alarm over all attacks and metrics together, at most.
        tolerance: Part of the spread of an attack's scores by which each may differ where the target is the same; ten
            times that if it fits scales or weights, and not of concern to trained classifiers, which go by ranks.
        attacks: Labels, names or globs of names; empty for all. What of these the baseline has must be compared.
    """

    metrics: tuple[str, ...] = ("auc",)
    fail_on: Direction = "rise"
    margin: float = 0.0
    alpha: float = 0.05
    tolerance: float = 1e-3
    attacks: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if unknown := [name for name in self.metrics if name not in METRICS]:
            raise UsageError(f"metric {unknown[0]!r}", suggest(unknown[0], METRICS), f"gate on {', '.join(METRICS)}")
        if not self.metrics:
            raise UsageError("gate", "it has no metric", f"gate on {', '.join(METRICS)}")

    def takes(self, label: str) -> bool:
        """Whether an attack is of the family: its label, its name or a glob of that, as for `run --attacks`."""
        name = Label.parse(label).name
        return not self.attacks or any(
            part == "all" or part in (label, name) or fnmatchcase(label if "@" in part else name, part)
            for part in self.attacks
        )


@dataclass(frozen=True)
class Moved:
    """One sample whose score is another: `times` what it may differ by."""

    sample: str
    before: float
    after: float
    times: float


@dataclass(frozen=True)
class ComparedRow:
    """One attack or control, or one metric of an attack.

    Attributes:
        label: `attack` or `attack@preset`.
        metric: The gated metric; `scores` where scores are compared one by one.
        verdict: `same` and `held` pass; `no baseline` (it has no scores there) says nothing; `not compared` is no pass;
            all others are regressions.
        why: What was found, in a line, naming the worst sample if scores moved.
        n: Samples compared.
        before: The metric before; the AUC where scores are compared.
        after: And after.
        moved: How many scores are others.
        furthest: How far any score has moved, in units of what it may.
        worst: The worst of them.
        tested: The test, where the target is another.
    """

    label: str
    metric: str
    verdict: Verdict
    why: str
    n: int = 0
    before: float | None = None
    after: float | None = None
    moved: int = 0
    furthest: float = 0.0
    worst: tuple[Moved, ...] = ()
    tested: Tested | None = None

    @property
    def regressed(self) -> bool:
        return self.verdict in REGRESSED

    @property
    def compared(self) -> bool:
        return self.verdict not in ("not compared", "no baseline")

    def to_json(self) -> dict[str, Any]:
        """Its fields, with what follows from them."""
        record = {**asdict(self), "regressed": self.regressed}
        if self.tested:
            record["tested"]["detectable"] = self.tested.detectable
        return record

    def lines(self) -> list[str]:
        """What a person needs to know of it; names attack and samples."""
        name = self.label if self.metric == "scores" else f"{self.label} {self.metric}"
        said = [f"{name}: {self.verdict}; {self.why}"]
        return said + [f"  {m.sample}: {m.before:.6g} -> {m.after:.6g} ({m.times:.3g} x tolerance)" for m in self.worst]


@dataclass(frozen=True)
class Comparison:
    """A current run against a baseline.

    Attributes:
        question: Whether scores are compared one by one (the same target) or metrics are tested (another one).
        gate: What was asked.
        baseline: Folder of the baseline.
        current: Folder of the current run.
        rows: One for each attack of the baseline that was asked for; of several metrics, one for each.
        new: Attacks that only the current run has.
        problem: Why nothing, or not all that was asked for, could be compared; empty if all was.
        fix: What to do about that.
    """

    question: Question
    gate: Gate
    baseline: Path
    current: Path
    rows: tuple[ComparedRow, ...] = ()
    new: tuple[str, ...] = ()
    problem: str = ""
    fix: str = ""

    @property
    def regressed(self) -> tuple[ComparedRow, ...]:
        return tuple(row for row in self.rows if row.regressed)

    @property
    def missed(self) -> tuple[ComparedRow, ...]:
        """What the baseline has scores of and was not compared."""
        return tuple(row for row in self.rows if row.verdict == "not compared")

    @property
    def status(self) -> ExitStatus:
        if self.regressed:
            return ExitStatus.REGRESSED
        return ExitStatus.NOTHING if self.problem else ExitStatus.OK

    def to_json(self) -> dict[str, Any]:
        """JSON-ready; infinite numbers as text."""
        return {
            "baseline": str(self.baseline),
            "current": str(self.current),
            "question": self.question,
            "gate": asdict(self.gate),
            "status": int(self.status),
            "problem": self.problem,
            "fix": self.fix,
            "new": list(self.new),
            "rows": [_finite(row.to_json()) for row in self.rows],
        }


_Changed = tuple[ComparedRow, Change | None]


def compare(baseline: Path, current: Path, gate: Gate | None = None) -> Comparison:
    """Hold a finished run against a baseline.

    Args:
        baseline: A finished run folder, or what `mia_bench.engine.baseline.record` keeps of one.
        current: A finished run folder.
        gate: What to compare and to tolerate.

    Returns:
        What was found; `problem` says why if something could not be compared.

    Raises:
        UnavailableError: A run is missing, damaged or unfinished.
        UsageError: A file was given, or a result of another task than membership.
    """
    gate = gate or Gate()
    before, after = finished_run(baseline), finished_run(current)
    same = before.plan.target_fingerprint == after.plan.target_fingerprint
    found = Comparison("same scores" if same else "leakage", gate, baseline, current)
    if problem := why_incomparable(before, after):
        return replace(found, problem=problem, fix=_fix(before, after, made_otherwise=True))
    family = [a for a in before.plan.attacks if gate.takes(a.label) and (same or not a.control)]
    if same:
        rows = [_scores_row(planned, before, after, gate) for planned in family]
    else:
        rows = _judged([pair for planned in family for pair in _changed(planned, before, after, gate)], gate)
    labels = {a.label for a in before.plan.attacks}
    new = [a.label for a in after.plan.attacks if a.label not in labels and gate.takes(a.label) and not a.control]
    found = replace(found, rows=tuple(rows), new=tuple(new))
    if not family:
        return replace(
            found, problem="no attack of the baseline is asked for", fix=f"`mia-bench report {baseline}` lists them"
        )
    some = any(row.compared for row in found.rows)
    lacking = found.missed if some else found.rows
    problem = "; ".join(dict.fromkeys(f"{row.label}: {row.why}" for row in lacking))
    if not problem:
        return found
    fix = _fix(before, after)
    return replace(found, problem=problem, fix=f"leave it out with --attacks or --metrics; or {fix}" if some else fix)


def _row(run: FinishedRun, label: str) -> Row:
    """What its table shows of an attack that it has."""
    return next(row for row in run.result.rows if row.label == label)


def _fix(before: FinishedRun, after: FinishedRun, made_otherwise: bool = False) -> str:
    update = shlex.join(["mia-bench", "compare", str(before.folder), str(after.folder), "--update"])
    again = f"run as the baseline was: `{before.plan.command}`; or " if made_otherwise and before.plan.command else ""
    return f"{again}record a new baseline on purpose: `{update}`"


def _why_not(planned: PlannedAttack, before: FinishedRun, after: FinishedRun) -> tuple[Verdict, str] | None:
    """The verdict on an attack that cannot be compared, and why; None if it can."""
    label = planned.label
    own = _row(before, label)
    if label not in before.scores:
        return "no baseline", f"the baseline has no scores of it: {own.reason}"
    now = next((a for a in after.plan.attacks if a.label == label), None)
    if now is None:
        return "not compared", after.result.skipped.get(label) or "the current run does not have it"
    if None not in (planned.version, now.version) and planned.version != now.version:
        return "not compared", f"defined otherwise (version {planned.version}, now {now.version})"
    row = _row(after, label)  # `score` may set parameters that the plan does not know
    if other := sorted(k for k in own.params.keys() & row.params.keys() if own.params[k] != row.params[k]):
        name = other[0]
        return "not compared", f"defined otherwise ({name}={own.params[name]}, now {row.params[name]})"
    if label not in after.scores:
        return "no scores", f"it has none in the current run: {row.reason}"
    lost = [i for i in before.scores[label].ids if i not in after.scores[label].by_id]
    if lost:
        reasons = {f.sample: f.reason for f in after.result.failures if f.attack in (None, label)}
        why = f": {reasons[lost[0]]}" if lost[0] in reasons else ""
        return "no scores", f"{len(lost)} samples that the baseline scored have none, first {lost[0]!r}{why}"
    return None


def _scores_row(planned: PlannedAttack, before: FinishedRun, after: FinishedRun, gate: Gate) -> ComparedRow:
    """Whether an attack still gives every sample its score."""
    label = planned.label
    aucs = _auc(before, label), _auc(after, label)
    if why_not := _why_not(planned, before, after):
        return ComparedRow(label, "scores", *why_not, 0, *aucs)
    ours, theirs = before.scores[label], after.scores[label].by_id
    new = np.array([theirs[i] for i in ours.ids])
    if planned.learns == "classifier":
        ratio = displacements(ours.values, new, RANKS)
    else:
        ratio = departures(ours.values, new, gate.tolerance * (FITTED if planned.learns == "scale" else 1))
    order = np.argsort(-ratio, kind="stable")[: min(WORST, int((ratio > 1).sum()))]
    worst = tuple(Moved(ours.ids[i], float(ours.values[i]), float(new[i]), float(ratio[i])) for i in order)
    moved = int((ratio > 1).sum())
    row = ComparedRow(
        label, "scores", "same", "", len(ratio), *aucs, moved=moved, furthest=float(ratio.max()), worst=worst
    )
    if not moved:
        return replace(row, why=f"{len(ratio)} scores within tolerance, the worst at {ratio.max():.2g} of it")
    now = next(a for a in after.plan.attacks if a.label == label)
    cause = "; its code has changed" if now.definition != planned.definition else "; its own code has not changed"
    cause = "" if after.plan.sources else cause  # of another program
    first = worst[0]
    why = f"{moved} of {len(ratio)} scores, worst {first.sample!r}: {first.before:.6g}, now {first.after:.6g}{cause}"
    return replace(row, verdict="moved", why=why)


def _auc(run: FinishedRun, label: str) -> float | None:
    evaluation = next((row.evaluation for row in run.result.rows if row.label == label), None)
    return evaluation.auc.value if evaluation else None


def _changed(planned: PlannedAttack, before: FinishedRun, after: FinishedRun, gate: Gate) -> list[_Changed]:
    """How each gated metric of an attack changed."""
    label = planned.label
    if why_not := _why_not(planned, before, after):
        return [(ComparedRow(label, metric, *why_not), None) for metric in gate.metrics]
    ours, theirs = before.scores[label].by_id, after.scores[label].by_id
    members = {i: member for i, member in known(before.plan).items() if i in ours}
    old, new = ([run[i] for i in members] for run in (ours, theirs))
    now = next(a for a in after.plan.attacks if a.label == label)
    note = "its code has changed since the baseline" if now.definition != planned.definition else ""
    rows: list[_Changed] = []
    for metric in gate.metrics:
        row = ComparedRow(label, metric, "held", note, len(members))
        found = change(metric, old, new, [*members.values()])
        if isinstance(found, str):
            rows.append((replace(row, verdict="not compared", why=found), None))
        else:
            rows.append((row, found))
    return rows


def _judged(rows: Sequence[_Changed], gate: Gate) -> list[ComparedRow]:
    """Everything tested as one family."""
    changes = [found for _, found in rows if found]
    tests = iter(judged_together(changes, gate.fail_on, gate.margin, gate.alpha))
    return [_verdict(row, next(tests)) if found else row for row, found in rows]


UNSEEN = f"even the largest change would be found in fewer than {POWER:.0%} of cases"


def _verdict(row: ComparedRow, tested: Tested) -> ComparedRow:
    one, least = tested.change, tested.detectable
    verdict: Verdict = "held" if not tested.found else "rose" if one.value > 0 else "dropped"
    low, high = one.interval()
    said = (
        f"{one.before:.3f}, now {one.after:.3f} ({one.value:+.3f} [{low:+.3f}, {high:+.3f}], p {tested.adjusted:.2g})"
    )
    seen = "the samples rank as before" if one.spread == 0 else UNSEEN
    seen = seen if least is None else f"a change of {least:.3f} would have been seen"
    seen = "" if tested.found else seen
    why = "; ".join(filter(None, (said, seen, one.note, row.why)))
    return replace(row, verdict=verdict, why=why, before=one.before, after=one.after, tested=tested)


def _finite(value: Any) -> Any:
    """Infinite numbers as text: JSON has none."""
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return str(value) if isinstance(value, float) and not np.isfinite(value) else value
