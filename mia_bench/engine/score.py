"""The cheap half: stored measurements to scores, scores to metrics. Needs no target."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mia_bench.attack import Attack, Control, Measured, Scores
from mia_bench.engine.blame import fault
from mia_bench.engine.cost import Ledger
from mia_bench.engine.label import Label
from mia_bench.engine.measure import Outcome
from mia_bench.engine.plan import Plan, PlannedAttack
from mia_bench.errors import MiaBenchError
from mia_bench.metrics import ClearsBlind, Metric, Suspects, best_threshold, clears_blind, evaluate, exceeding
from mia_bench.result import MEMBERSHIP, SUSPECTS, Failure, Result, Row, Task
from mia_bench.store import Store, Terms


@dataclass(frozen=True)
class Scored:
    """Scores of one attack: `rows` are the plan's samples that have one (int64 `(n,)`)."""

    rows: NDArray[np.int64]
    values: NDArray[np.float64]
    tags: tuple[str, ...]
    fitted: dict[str, float]


@dataclass(frozen=True)
class Unscored:
    """Why an attack has no scores; `failed` if by its own fault."""

    reason: str
    failed: bool = False


def score_run(
    plan: Plan,
    attacks: Mapping[str, Attack],
    store: Store,
    outcome: Outcome | None = None,
    unfinished: str = "",
    tasks: Sequence[Task] = (MEMBERSHIP,),
) -> tuple[Result, ...]:
    """Score everything measured, write `scores.parquet` and `results.json`.

    An attack is scored once, whatever is compared; a control, which sees labels, anew for each task.

    Args:
        plan: The run's plan.
        attacks: label -> attack instance, for every planned attack.
        store: The run folder.
        outcome: What went wrong while measuring, if that has just been done.
        unfinished: How far the run has come, if it was interrupted.
        tasks: What to compare; the files are of membership always.

    Returns:
        A result for each task.
    """
    outcome = outcome or Outcome()
    ledger = Ledger(plan, store)
    stored = cache(lambda fingerprint: store.terms(fingerprint, plan.samples.pairs))
    fingerprints = {a.label: a.fingerprint for a in plan.attacks}
    broken = {fingerprints[label]: error for label, error in outcome.attacks.items()}

    def attempt(planned: PlannedAttack, task: Task) -> Scored | Unscored:
        attack = attacks[planned.label]
        if problem := broken.get(planned.fingerprint):  # what was measured before is no basis for a row
            return Unscored(f"measure failed: {fault(problem, type(attack))}", failed=True)
        try:
            return _score(plan, planned, attack, *stored(planned.fingerprint), task)
        except MiaBenchError as error:
            left_out = [
                r for (_, a), r in outcome.samples.items() if a is None or fingerprints[a] == planned.fingerprint
            ]
            return Unscored(str(error) + (f": {left_out[0]}" if left_out else ""))
        except (Exception, SystemExit) as error:  # one attack's fault must not cost the others their row
            return Unscored(f"score failed: {fault(error, type(attack))}", failed=True)

    usable = np.any([stored(a.fingerprint)[0] for a in plan.attacks], axis=0)
    why = "not measured yet" if unfinished else "not measured; the run that measures it says why"

    def result_of(task: Task, found: Mapping[str, Scored | Unscored]) -> Result:
        rows = _rows(plan, attacks, found, ledger, task)
        if task == MEMBERSHIP and plan.samples.sides(SUSPECTS)[0].any():
            blind = {a.label: attempt(a, SUSPECTS) for a in plan.attacks if a.control}
            counted = {row.label: _suspects(plan, attacks[row.label], {**found, **blind}[row.label]) for row in rows}
            rows = [row.model_copy(update={"suspects": counted[row.label]}) for row in rows]
        result = _result(plan, rows, _failures(plan, found, outcome, why), usable, ledger, task)
        return result.model_copy(update={"unfinished": f"{unfinished}; {plan.goes_on}"}) if unfinished else result

    scored = {a.label: attempt(a, MEMBERSHIP) for a in plan.attacks}
    membership = result_of(MEMBERSHIP, scored)
    store.write_table("scores.parquet", scores_table(plan, scored))
    store.write_json("results.json", membership.model_dump(mode="json"))

    def compared(task: Task) -> Result:
        return result_of(task, {**scored, **{a.label: attempt(a, task) for a in plan.attacks if a.control}})

    return tuple(membership if task == MEMBERSHIP else compared(task) for task in tasks)


def scores_table(plan: Plan, found: Mapping[str, Scored | Unscored]) -> pa.Table:
    """All scores: `attack, preset, sample_id, split, label, score`; label is null where membership is unknown."""
    columns: dict[str, list[Any]] = defaultdict(list)
    samples = plan.samples
    for label, scores in _scored(found).items():
        parts = Label.parse(label)
        for row, value in zip(scores.rows, scores.values, strict=True):
            columns["attack"].append(parts.unset)
            columns["preset"].append(parts.preset)
            columns["sample_id"].append(samples.id[row])
            columns["split"].append(samples.split[row])
            columns["label"].append(samples.member[row])
            columns["score"].append(float(value))
    text = ("attack", "preset", "sample_id", "split")
    schema = pa.schema([*((n, pa.string()) for n in text), ("label", pa.bool_()), ("score", pa.float64())])
    return pa.table({name: columns[name] for name in schema.names}, schema=schema)


def _scored(found: Mapping[str, Scored | Unscored]) -> dict[str, Scored]:
    return {label: scores for label, scores in found.items() if isinstance(scores, Scored)}


def _score(
    plan: Plan, planned: PlannedAttack, attack: Attack, found: NDArray[np.bool_], terms: Terms, task: Task
) -> Scored:
    samples = plan.samples
    if planned.samples is not None:  # a fuller run may have left more
        wanted = samples.first(planned.samples)
        terms, found = {name: values[wanted[found]] for name, values in terms.items()}, found & wanted
    rows = np.flatnonzero(found)
    if not len(rows):
        raise MiaBenchError("no sample was measured")
    if planned.control:  # controls see the labels of the samples they score
        usable = np.any(samples.sides(task), axis=0)[rows]
        rows, terms = rows[usable], {name: values[usable] for name, values in terms.items()}
    everything = Measured(
        terms,
        tuple(samples.id[i] for i in rows),
        samples.audit[rows],
        tuple(samples.group[i] for i in rows),
        samples.sides(task)[0][rows] if planned.control else None,
        task.names,
    )
    calibration = None
    known, gap = _calibration(plan, planned, rows)
    if gap is None:
        part = everything.select(known)
        calibration = Measured(part.terms, part.ids, part.audit, part.groups, samples.is_member[rows][known])
    given = attack.score(everything, calibration)
    scores = given if isinstance(given, Scores) else Scores(np.asarray(given))
    values = np.asarray(scores.values, dtype=np.float64)
    if values.shape != rows.shape:
        raise ValueError(f"score returned shape {values.shape} for {len(rows)} samples")
    if np.isnan(values).any():
        raise ValueError(f"score returned NaN for {int(np.isnan(values).sum())} samples")
    fitted = {str(name): float(value) for name, value in scores.fitted.items()}
    if not np.isfinite(list(fitted.values())).all():
        raise ValueError(f"what was fitted is not finite: {fitted}")
    return Scored(rows, values, tuple(map(str, scores.tags)), fitted)


def _calibration(plan: Plan, planned: PlannedAttack, rows: NDArray[np.int64]) -> tuple[NDArray[np.bool_], str | None]:
    """Which of an attack's samples calibrate it, and why they cannot, if they cannot."""
    known = plan.samples.calibrating[rows]
    member = plan.samples.is_member[rows][known]
    if planned.control or plan.calibration:
        return known, plan.calibration or "a control is not calibrated"
    if not (member.any() and (~member).any()):
        return known, "no calibration members or no non-members could be measured"
    return known, None


def _rows(
    plan: Plan,
    attacks: Mapping[str, Attack],
    found: Mapping[str, Scored | Unscored],
    ledger: Ledger,
    task: Task,
) -> list[Row]:
    samples, scored = plan.samples, _scored(found)
    positive, negative = samples.sides(task)
    controls = {label: a for label in scored if isinstance(a := attacks[label], Control)}
    compared = {label: s.rows[(positive | negative)[s.rows]] for label, s in scored.items()}
    value = {label: dict(zip(s.rows.tolist(), s.values.tolist(), strict=True)) for label, s in scored.items()}
    rows: list[Row] = []

    def auc_on(label: str, kept: NDArray[np.int64]) -> Metric:
        """A control's AUC on the very samples of another row."""
        both = [i for i in kept.tolist() if i in value[label]]
        return evaluate([value[label][i] for i in both], positive[both], n_resamples=1, classes=task.names).auc

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
        known, gap = _calibration(plan, planned, scores.rows)
        if task != MEMBERSHIP:
            gap = gap or "a threshold calibrated for membership says nothing about memorisation"
        threshold = best_threshold(scores.values[known], samples.is_member[scores.rows][known]) if not gap else None
        evaluation = evaluate(
            values, positive[kept], calibration_threshold=threshold, calibration_reason=gap, classes=task.names
        )
        blind: ClearsBlind | None = None
        if not planned.control:
            reads_captions = plan.uses_captions and planned.caption != "unused"
            names = [c for c, control in controls.items() if reads_captions or control.modality == "image"]
            without = [found[a.label] for a in plan.attacks if a.control]
            missing = dict.fromkeys(one.reason for one in without if isinstance(one, Unscored))
            blind = clears_blind(evaluation.auc, [auc_on(name, kept) for name in names], "; ".join(missing))
        rows.append(
            Row(
                **common,
                status="ok",
                n=len(kept),
                evaluation=evaluation,
                blind=blind,
                tags=scores.tags,
                fitted=scores.fitted,
                **ledger.price(planned.fingerprint),
            )
        )
    return rows


def _suspects(plan: Plan, attack: Attack, found: Scored | Unscored) -> Suspects | None:
    """Samples of unknown membership above thresholds from known non-members, of the audit set if it has any."""
    if isinstance(found, Unscored):
        return None
    samples, rows = plan.samples, found.rows
    unknown, known = (side[rows] for side in samples.sides(SUSPECTS))
    if not known.any() and attack.meta.calibration == "unused":  # else it may be fitted on these
        known = (samples.calibrating & ~samples.is_member)[rows]
    return exceeding(found.values[unknown], found.values[known]) if unknown.any() and known.any() else None


def _failures(plan: Plan, found: Mapping[str, Scored | Unscored], outcome: Outcome, missing_why: str) -> list[Failure]:
    """Every sample that some attack's row lacks, and why; `missing_why` where nothing is known."""
    scored = _scored(found)
    failures = [Failure(sample=s, attack=a, reason=r) for (s, a), r in sorted(outcome.samples.items(), key=str)]
    ids = plan.samples.id
    uncaptioned = {i for i, has in zip(ids, plan.samples.captioned, strict=True) if not has}
    first: dict[str, str] = {}  # the label under which presets of one identity were measured
    for attack in plan.attacks:
        under = first.setdefault(attack.fingerprint, attack.label)
        bare = uncaptioned if attack.caption == "required" else set()
        if attack.control or attack.label not in scored:
            continue
        said = bare | {s for s, a in outcome.samples if a in (None, under)}
        wanted = {ids[row] for row in np.flatnonzero(plan.samples.first(attack.samples))}
        missing = wanted - {ids[row] for row in scored[attack.label].rows} - said
        failures += [Failure(sample=i, attack=attack.label, reason=missing_why) for i in sorted(missing)]
    return failures


def _result(
    plan: Plan, rows: Sequence[Row], failures: Sequence[Failure], usable: NDArray[np.bool_], ledger: Ledger, task: Task
) -> Result:
    """`usable`, bool `(N,)`: samples that something was measured on."""
    positive, negative = plan.samples.sides(task)
    unknown = plan.samples.audit & ~plan.samples.labelled & (task == MEMBERSHIP)
    return Result(
        task=task,
        dataset=plan.dataset,
        dataset_revision=plan.dataset_revision,
        target=plan.target,
        target_kind=plan.target_kind,
        target_fingerprint=plan.target_fingerprint,
        target_options=plan.target_options,
        target_facts=plan.target_facts,
        reference=plan.reference,
        reference_fingerprint=plan.reference_fingerprint,
        seed=plan.seed,
        noise=plan.noise,
        independent_noise=plan.independent_noise,
        dtype=plan.dtype,
        latent=plan.latent,
        samples_hash=plan.samples.digest_of_all,
        division=plan.division,
        captions=plan.captions,
        n_members=int((positive & usable).sum()),
        n_nonmembers=int((negative & usable).sum()),
        n_unknown=int((unknown & usable).sum()),
        n_left_out=int(((positive | negative | unknown) & ~usable).sum()),
        calibration=plan.calibration,
        rows=tuple(rows),
        skipped={s.label: s.reason for s in plan.skipped},
        failures=tuple(failures),
        cost=ledger.total(),
        environments=ledger.environments(),
    )
