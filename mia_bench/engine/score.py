"""The cheap half: stored measurements to scores, scores to metrics. Needs no target."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mia_bench.attack import Attack
from mia_bench.engine.blame import fault
from mia_bench.engine.calibrate import other_of
from mia_bench.engine.cost import Ledger
from mia_bench.engine.label import Label
from mia_bench.engine.measure import Outcome
from mia_bench.engine.plan import Plan, PlannedAttack
from mia_bench.engine.rows import count_suspects, make_rows
from mia_bench.engine.scored import Scored, Scorer, Unscored, only_scored
from mia_bench.errors import MiaBenchError
from mia_bench.result import MEMBERSHIP, SUSPECTS, Failure, Result, Row, Task
from mia_bench.store import Store
from mia_bench.trace import span

SCORES = pa.schema(
    [
        *((name, pa.string()) for name in ("attack", "preset", "sample_id", "split")),
        ("label", pa.bool_()),
        ("score", pa.float64()),
    ]
)


@span("scoring")
def score_run(
    plan: Plan,
    attacks: Mapping[str, Attack],
    store: Store,
    outcome: Outcome | None = None,
    unfinished: str = "",
    tasks: Sequence[Task] = (MEMBERSHIP,),
) -> tuple[Result, ...]:
    """As `scores_of`, and write `scores.parquet` and `results.json`; they are of membership always.

    Returns:
        A result for each task.
    """
    (membership, *results), table = scores_of(plan, attacks, store, outcome, unfinished, (MEMBERSHIP, *tasks))
    store.write_table("scores.parquet", table)
    store.write_json("results.json", membership.model_dump(mode="json"))
    return tuple(results)


def scores_of(
    plan: Plan,
    attacks: Mapping[str, Attack],
    store: Store,
    outcome: Outcome | None = None,
    unfinished: str = "",
    tasks: Sequence[Task] = (MEMBERSHIP,),
) -> tuple[tuple[Result, ...], pa.Table]:
    """Score everything measured.

    An attack is scored once, whatever is compared; a control, which sees labels, anew for each task.

    Args:
        plan: The run's plan.
        attacks: label -> attack instance, for every planned attack.
        store: The run folder.
        outcome: What went wrong while measuring, if that has just been done.
        unfinished: How far the run has come, if it was interrupted.
        tasks: What to compare.

    Returns:
        A result for each task, and all scores; see `scores_table`.
    """
    outcome = outcome or Outcome()
    ledger = Ledger(plan, store)
    stored = cache(lambda fingerprint: store.terms(fingerprint, plan.samples.pairs))
    scorer = Scorer(plan, attacks, stored, other_of(plan, store.folder))
    fingerprints = {a.label: a.fingerprint for a in plan.attacks}
    scored: dict[str, Scored | Unscored] = {}
    broken = {fingerprints[label]: why for label, why in outcome.attacks.items()}

    def attempt(planned: PlannedAttack, task: Task) -> Scored | Unscored:
        attack = attacks[planned.label]
        if problem := broken.get(planned.fingerprint):  # what was measured before is no basis for a row
            return Unscored(problem, failed=True)
        for label in planned.requires:
            if isinstance(base := scored[label], Unscored):
                return Unscored(f"it requires {label}: {base.reason}")
        try:
            with span("controls" if planned.control else "scoring"):
                return scorer.score(planned.label, task)
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
        rows = make_rows(plan, attacks, found, ledger, task)
        if task == MEMBERSHIP and plan.samples.sides(SUSPECTS)[0].any():
            blind = {a.label: attempt(a, SUSPECTS) for a in plan.attacks if a.control}
            counted = {
                row.label: count_suspects(plan, attacks[row.label], {**found, **blind}[row.label]) for row in rows
            }
            rows = [row.model_copy(update={"suspects": counted[row.label]}) for row in rows]
        result = _result(plan, rows, _failures(plan, found, outcome, why), usable, ledger, task)
        return result.model_copy(update={"unfinished": f"{unfinished}; {plan.goes_on}"}) if unfinished else result

    for planned in plan.attacks:  # those that others combine come first
        scored[planned.label] = attempt(planned, MEMBERSHIP)
    membership = result_of(MEMBERSHIP, scored)

    def compared(task: Task) -> Result:
        return result_of(task, {**scored, **{a.label: attempt(a, task) for a in plan.attacks if a.control}})

    results = tuple(membership if task == MEMBERSHIP else compared(task) for task in tasks)
    return results, scores_table(plan, scored)


def scores_table(plan: Plan, found: Mapping[str, Scored | Unscored]) -> pa.Table:
    """All scores: `attack, preset, sample_id, split, label, score`; label is null where membership is unknown."""
    columns: dict[str, list[Any]] = defaultdict(list)
    samples = plan.samples
    for label, scores in only_scored(found).items():
        parts = Label.parse(label)
        for row, value in zip(scores.rows, scores.values, strict=True):
            columns["attack"].append(parts.unset)
            columns["preset"].append(parts.preset)
            columns["sample_id"].append(samples.id[row])
            columns["split"].append(samples.split[row])
            columns["label"].append(samples.member[row])
            columns["score"].append(float(value))
    return pa.table({name: columns[name] for name in SCORES.names}, schema=SCORES)


def _failures(plan: Plan, found: Mapping[str, Scored | Unscored], outcome: Outcome, missing_why: str) -> list[Failure]:
    """Every sample that some attack's row lacks, and why; `missing_why` where nothing is known."""
    scored = only_scored(found)
    failures = [Failure(sample=s, attack=a, reason=r) for (s, a), r in sorted(outcome.samples.items(), key=str)]
    ids = plan.samples.id
    uncaptioned = {i for i, has in zip(ids, plan.samples.captioned, strict=True) if not has}
    first: dict[str, str] = {}  # the label under which presets of one identity were measured
    for attack in plan.attacks:
        under = first.setdefault(attack.fingerprint, attack.label)
        bare = uncaptioned if attack.caption == "required" else set()
        if attack.control or attack.requires or attack.label not in scored:
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
        shadow=plan.shadow,
        division=plan.division,
        captions=plan.captions,
        sources=plan.sources,
        n_members=int((positive & usable).sum()),
        n_nonmembers=int((negative & usable).sum()),
        n_unknown=int((unknown & usable).sum()),
        n_left_out=int(((positive | negative | unknown) & ~usable).sum()),
        calibration=None if plan.shadow else plan.calibration,
        rows=tuple(rows),
        skipped={s.label: s.reason for s in plan.skipped},
        failures=tuple(failures),
        cost=ledger.total(),
        environments=ledger.environments(),
    )
