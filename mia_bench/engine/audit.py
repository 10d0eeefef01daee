"""From a run to what it says of its suspects: as a set, and one by one. Needs no target."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mia_bench.attack import Control
from mia_bench.engine.artifacts import INDEX
from mia_bench.engine.audited import UNSEEN
from mia_bench.engine.plan import Plan
from mia_bench.engine.prepare import class_of, instances
from mia_bench.engine.run import how_unfinished, replan
from mia_bench.engine.scores import by_label
from mia_bench.engine.select import Options, label_of
from mia_bench.errors import NothingError, UsageError
from mia_bench.evidence import Audit, Blind, Draws, ImageEvidence, Reading, SetEvidence, SetVerdict, Usual
from mia_bench.metrics import auc_interval
from mia_bench.metrics.conformal import conformal_p, needed, percentile
from mia_bench.metrics.delong import PairedDifference
from mia_bench.metrics.holm import holm
from mia_bench.metrics.models import Metric
from mia_bench.metrics.set_test import (
    detectable_auc,
    least_p_value,
    nonmembers_needed,
    rejections,
    set_test,
)
from mia_bench.metrics.verdict import gap_of, towards, unpaired
from mia_bench.plugins import Registry
from mia_bench.result import MEMBERSHIP, SUSPECTS, Result
from mia_bench.store import ARTIFACTS, Store

ALPHA = 0.05
DRAWS = 100
SIZES = (10, 30, 100, 300)  # of sets drawn for power and false positives
BINS = 24  # of the histogram of usual scores
COVERAGE = 0.9  # share of the samples that the fullest attack scored, without which one has no part in the set's test
Scores = Mapping[str, Mapping[str, float]]  # label -> sample -> score


@dataclass(frozen=True)
class _Sides:
    """Who is compared with whom: rows of the plan, bool `(N,)`."""

    suspects: NDArray[np.bool_]
    nonmembers: NDArray[np.bool_]
    members: NDArray[np.bool_]  # known, beside the suspects
    kind: Literal["unknown", "members"]
    split: Literal["audit", "calibration"]


def audit(
    registry: Registry,
    folder: Path,
    options: Options | None = None,
    *,
    attacks: str = "",
    alpha: float = ALPHA,
    draws: int = DRAWS,
    seed: int = 0,
) -> Audit:
    """Score a run again from its stored measurements, and test its suspects against its known non-members.

    The run keeps the results that it has.

    Suspects are the audited samples of unknown membership; in a run without such, those labelled members.

    Args:
        registry: All plugins.
        folder: The run folder.
        options: Scoring parameters, as for `rescore`.
        attacks: Labels joined by commas: those of the run's attacks that count, chosen before their scores were seen.
            All if empty.
        alpha: Level of all tests.
        draws: Random sets of each size, for power and false positives; 0 leaves them out.
        seed: Of shuffles and draws.

    Raises:
        NothingError: The run has no suspects, no known non-members, or no attack that scored both.
        UsageError: An attack that is named has no scores in the run.
    """
    from threadpoolctl import threadpool_limits

    from mia_bench.engine.score import scores_of

    store = Store(folder)
    plan = replan(registry, folder, options or {})
    sides = _sides(plan)
    task = SUSPECTS if sides.kind == "unknown" and sides.split == "audit" else MEMBERSHIP
    with store.locked():
        made, unfinished = instances(registry, plan), how_unfinished(plan, store)
        (result,), table = scores_of(plan, made, store, unfinished=unfinished, tasks=(task,))
    scores = {label: one.by_id for label, one in by_label(table).items()}
    labels = _labels(registry, plan, result, scores, sides, attacks)
    failed = {failure.sample for failure in result.failures}
    scored = np.array([any(i in scores[label] for label in labels) for i in plan.samples.id])
    lost = np.array([i in failed for i in plan.samples.id])
    with threadpool_limits(1):  # the same sums on any number of cores; threads gain nothing at this size
        as_set = _set(registry, plan, result, scores, labels, sides, alpha, draws, seed)
    return Audit(
        dataset=plan.dataset,
        target=plan.target,
        target_fingerprint=plan.target_fingerprint,
        seed=plan.seed,
        samples_hash=plan.samples.digest_of_all,
        folder=str(folder),
        suspects=sides.kind,
        n_suspects=int((sides.suspects & scored).sum()),
        n_nonmembers=int((sides.nonmembers & scored).sum()),
        left_out=int(((sides.suspects | sides.nonmembers) & lost & ~scored).sum()),
        nonmembers=sides.split,
        alpha=alpha,
        attacks=tuple(labels),
        without={row.label: row.reason or row.status for row in result.rows if row.status != "ok"},
        failed=any(row.status == "failed" for row in result.rows),
        usual={label: _usual(plan, scores[label], sides) for label in labels},
        needed=needed(alpha, len(labels)),
        set=as_set,
        images=_images(plan, scores, labels, sides, alpha, _pictures(folder)),
        unfinished=result.unfinished,
    )


def _sides(plan: Plan) -> _Sides:
    samples = plan.samples
    unknown, known = samples.sides(SUSPECTS)
    suspects, members = samples.suspects, samples.sides(MEMBERSHIP)[0]
    kind: Literal["unknown", "members"] = "unknown" if unknown.any() else "members"
    others = members & ~suspects
    what = f"audit of {plan.dataset} on {plan.target}"
    if not suspects.any():
        why = "the run has no suspects: no audited sample is of unknown membership or labelled a member"
        raise NothingError(what, why, "run on images without a label beside non-members, or name them with --suspects")
    if known.any():
        return _Sides(suspects, known, others, kind, "audit")
    known = samples.calibrating & ~samples.is_member
    if not known.any():
        why = "no image is known to be unseen, so nothing says what is usual"
        raise NothingError(what, why, UNSEEN)
    return _Sides(suspects, known, others, kind, "calibration")


def _labels(registry: Registry, plan: Plan, result: Result, scores: Scores, sides: _Sides, attacks: str) -> list[str]:
    """The run's attacks that scored suspects and non-members, of those that count."""
    what = f"audit of {plan.dataset} on {plan.target}"
    ids = np.array(plan.samples.id, dtype=object)
    ours, theirs = set(ids[sides.suspects]), set(ids[sides.nonmembers])
    possible = []
    for planned in plan.attacks:
        fitted = sides.split == "calibration" and class_of(registry, planned).meta.calibration != "unused"
        known = scores.get(planned.label, {}).keys()
        if not planned.control and not fitted and ours & known and theirs & known:
            possible.append(planned.label)
    if not possible:
        reasons = [f"{row.label}: {row.reason}" for row in result.rows if row.reason and not row.control]
        raise NothingError(
            what, "; ".join(["no attack scored suspects and non-members", *reasons]), "run other attacks on both"
        )
    if not attacks:
        return possible
    texts = [text.strip() for text in attacks.split(",") if text.strip()]
    named = [text if text in possible else str(label_of(registry, text)) for text in texts]
    for label in named:
        matching = [p for p in possible if p == label or p.partition("[")[0] == label]
        if not matching:
            why = "the run has no scores of it on both suspects and non-members"
            raise UsageError(f"--attacks {label}", why, f"it has {', '.join(possible)}")
    return [p for p in possible if any(p == label or p.partition("[")[0] == label for label in named)]


def _set(
    registry: Registry,
    plan: Plan,
    result: Result,
    scores: Scores,
    labels: Sequence[str],
    sides: _Sides,
    alpha: float,
    draws: int,
    seed: int,
) -> SetEvidence | None:
    samples = plan.samples
    group = dict(zip(samples.id, samples.group, strict=True))
    whole = [[i for i, k in zip(samples.id, side, strict=True) if k] for side in (sides.suspects, sides.nonmembers)]
    both = {group[i] for i in whole[0]} & {group[i] for i in whole[1]}
    parts = [[i for i in side if group[i] not in both] for side in whole]
    counts = {label: [sum(i in scores[label] for i in part) for part in parts] for label in labels}
    fullest = np.max(list(counts.values()), axis=0)
    taken = [label for label, own in counts.items() if fullest.all() and (np.array(own) >= COVERAGE * fullest).all()]
    if not taken:
        return None

    def table(ids: Sequence[str]) -> tuple[NDArray[np.float64], list[str]]:
        kept = sorted(i for i in ids if all(i in scores[label] for label in taken))
        return np.array([[scores[label][i] for label in taken] for i in kept]), [group[i] for i in kept]

    (ours, our_groups), (theirs, their_groups) = map(table, parts)
    if not len(ours) or not len(theirs):
        return None
    test = set_test(ours, theirs, suspect_groups=our_groups, nonmember_groups=their_groups, seed=seed)
    values = np.concatenate([test.suspects, test.nonmembers])
    estimate = auc_interval(values, np.arange(values.size) < test.n)
    auc = Metric(
        value=estimate.value,
        low=estimate.low,
        high=estimate.high,
        level=estimate.level,
        status="ok",
        method=estimate.method,
    )
    controls, gaps, unchecked = _blind(registry, plan, result, taken, auc)
    verdict, against = _verdict(test.p_value, test.n, test.n_nonmembers, alpha, controls, gaps, unchecked)
    known, known_groups = table([i for i, k in zip(samples.id, sides.members, strict=True) if k])
    # One of each group, so that sets drawn from these are of units too.
    unseen = _firsts(theirs, their_groups)
    population = _firsts(known, known_groups) if len(known) else _firsts(ours, our_groups)
    sizes = [n for n in SIZES if n < len(population)]  # of all there are, only one set can be drawn
    halves = sorted(n for n in {*sizes, test.n} if 2 * n <= len(unseen))

    def drawn(pool: NDArray[np.float64], others: NDArray[np.float64] | None, sizes: Sequence[int]) -> tuple[Draws, ...]:
        found = [rejections(pool, others, n, alpha, draws=draws, seed=seed) for n in sizes if draws]
        return tuple(Draws(**asdict(one)) for one in found)

    return SetEvidence(
        verdict=verdict,
        p_value=test.p_value,
        alpha=alpha,
        n=test.n,
        n_nonmembers=test.n_nonmembers,
        arrangements=test.arrangements,
        exact=test.exact,
        weights=dict(zip(taken, map(float, test.weights), strict=True)),
        left_out={
            label: f"it scored {counts[label][0]} suspects and {counts[label][1]} non-members, others {fullest[0]} and "
            f"{fullest[1]}"
            for label in labels
            if label not in taken
        },
        straddling=sum(len(side) - len(part) for side, part in zip(whole, parts, strict=True)),
        auc=auc,
        blind=gap_of(against, gaps[against]) if against else None,
        unchecked=unchecked,
        controls=controls,
        detectable_auc=detectable_auc(test.n, test.n_nonmembers, alpha),
        needed=nonmembers_needed(test.n, alpha),
        power=drawn(population, unseen, sizes),
        power_of="known members" if len(known) else "suspects",
        false_positives=drawn(unseen, None, halves),
    )


def _firsts(values: NDArray[np.float64], groups: Sequence[str]) -> NDArray[np.float64]:
    """The first sample of each group, (N, D) to (G, D)."""
    return values[sorted({group: i for i, group in reversed([*enumerate(groups)])}.values())]


def _verdict(
    p_value: float,
    n: int,
    m: int,
    alpha: float,
    controls: Sequence[Blind],
    gaps: Mapping[str, PairedDifference],
    unchecked: str,
) -> tuple[SetVerdict, str]:
    """The verdict, and the control that it rests on.

    Not to be shown better than a control says little where that finds nothing itself: then there are too few images to
    tell. Only a control that does find a difference is another explanation of what the attacks find.
    """
    unbeaten = {label for label, gap in gaps.items() if towards(gap) >= alpha}
    rivals = unbeaten & {one.label for one in controls if one.finds}
    best = min(rivals or unbeaten or gaps, key=lambda label: gaps[label].difference.value or 0.0, default="")
    if least_p_value(n, m) > alpha:
        return "thin", best
    if p_value > alpha:
        return "none", best
    if rivals:
        return "split", best
    if unbeaten:
        return "unresolved", best
    return "unchecked" if unchecked else "evidence", best


def _blind(
    registry: Registry, plan: Plan, result: Result, labels: Sequence[str], auc: Metric
) -> tuple[tuple[Blind, ...], dict[str, PairedDifference], str]:
    """Controls that read what the attacks read, on suspects against non-members.

    Returns:
        The controls; label -> the attacks minus it; why some could not be compared.
    """
    made = instances(registry, plan)
    reads = any(a.caption != "unused" for a in plan.attacks if a.label in labels) and plan.uses_captions
    kinds = {row.label: made[row.label] for row in result.rows if row.control}
    rows = [
        row
        for row in result.rows
        if isinstance(one := kinds.get(row.label), Control) and (reads or one.modality == "image")
    ]
    controls = tuple(Blind(label=row.label, auc=row.evaluation.auc) for row in rows if row.evaluation)
    # The set's scores are of units and by weights of their own, so pairs would not be of the same things.
    gaps = {one.label: unpaired(auc, one.auc) for one in controls}
    known = {label: gap for label, gap in gaps.items() if gap.p_value is not None}
    missing = [row.reason or row.status for row in rows if row.label not in known]
    unchecked = "; ".join(dict.fromkeys(missing)) or ("" if known else "no blind baseline was run")
    return controls, known, unchecked


def _images(
    plan: Plan,
    scores: Scores,
    labels: Sequence[str],
    sides: _Sides,
    alpha: float,
    pictures: Mapping[str, Mapping[str, dict[str, str]]],
) -> tuple[ImageEvidence, ...]:
    samples = plan.samples
    suspects, nonmembers = (
        [i for i, kept in zip(samples.id, side, strict=True) if kept] for side in (sides.suspects, sides.nonmembers)
    )
    group = dict(zip(samples.id, samples.group, strict=True))
    near = Counter(group[i] for i in suspects)
    readings: dict[str, dict[str, Reading]] = {i: {} for i in suspects}
    for label in labels:
        own = scores[label]
        # A suspect's near-duplicates say what they say of it, not of what is usual.
        known = np.array([own[i] for i in nonmembers if i in own and group[i] not in near])
        scored = [i for i in suspects if i in own]
        if not known.size or not scored:
            continue
        values = np.array([own[i] for i in scored])
        for i, value, p, share in zip(
            scored, values, conformal_p(values, known), percentile(values, known), strict=True
        ):
            readings[i][label] = Reading(
                score=_finite(value), percentile=float(share), p_value=float(p), holm=1.0, n_nonmembers=known.size
            )
    found: list[tuple[str, float, float, dict[str, Reading]]] = []
    for sample, own_readings in readings.items():
        if not own_readings:
            continue
        adjusted = holm([one.p_value for one in own_readings.values()])
        own_readings = {
            label: one.model_copy(update={"holm": value})
            for (label, one), value in zip(own_readings.items(), adjusted, strict=True)
        }
        least = min(1.0, len(adjusted) / (1 + max(one.n_nonmembers for one in own_readings.values())))
        found.append((sample, min(adjusted), least, own_readings))
    found.sort(key=lambda one: (one[1], -np.mean([r.percentile for r in one[3].values()]), one[0]))
    over_all = holm([p for _, p, _, _ in found])
    return tuple(
        ImageEvidence(
            sample=sample,
            verdict="stands out" if p <= alpha else "thin" if least > alpha else "does not",
            p_value=p,
            over_all=overall,
            readings=own_readings,
            pictures={label: dict(of[sample]) for label, of in pictures.items() if sample in of},
        )
        for (sample, p, least, own_readings), overall in zip(found, over_all, strict=True)
    )


def _usual(plan: Plan, scores: Mapping[str, float], sides: _Sides) -> Usual:
    known = [scores[i] for i, kept in zip(plan.samples.id, sides.nonmembers, strict=True) if kept and i in scores]
    values = np.nan_to_num(np.array(known))
    low, median, top, high = map(float, np.percentile(values, [1, 50, 95, 99]))
    edges = np.linspace(low, high, BINS + 1)[1:-1]
    counts = np.bincount(np.searchsorted(edges, values, side="right"), minlength=BINS)
    return Usual(low=low, high=high, counts=tuple(map(int, counts)), median=median, top=top)


def _finite(value: Any) -> float:
    """JSON has no infinity; the largest number ranks the same."""
    return float(np.nan_to_num(value))


def _pictures(folder: Path) -> dict[str, dict[str, dict[str, str]]]:
    """Attack -> sample -> title -> file, of the pictures that the run saved."""
    store = Store(folder)
    if not (folder / ARTIFACTS / INDEX).exists():
        return {}
    found: dict[str, dict[str, dict[str, str]]] = {}
    for row in store.read_json(f"{ARTIFACTS}/{INDEX}", "run again with --artifacts").get("rows", []):
        found.setdefault(row["attack"], {})[row["sample"]] = row["pictures"]
    return found
