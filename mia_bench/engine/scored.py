"""Stored measurements to scores, attack by attack; of attacks that combine others, from the scores of those."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mia_bench.attack import Attack, Measured, Scores
from mia_bench.engine.calibrate import Borrowed, Other
from mia_bench.engine.plan import Plan, PlannedAttack
from mia_bench.errors import MiaBenchError
from mia_bench.fit import grouped_folds
from mia_bench.result import Calibration, Task
from mia_bench.store import Terms

FOLDS = 5  # in which attacks are fitted anew for an attack that combines their scores
CONTROL = "a control is not calibrated"


@dataclass(frozen=True)
class Calibrated:
    """Scores of the labelled samples that an attack was calibrated on: `values` and `member` are `(m,)`.

    `record.reason` says why there are none.
    """

    values: NDArray[np.float64]
    member: NDArray[np.bool_]
    record: Calibration


@dataclass(frozen=True)
class Scored:
    """Scores of one attack: `rows` are the plan's samples that have one (int64 `(n,)`)."""

    rows: NDArray[np.int64]
    values: NDArray[np.float64]
    tags: tuple[str, ...]
    fitted: dict[str, float]
    calibrated: Calibrated


@dataclass(frozen=True)
class Unscored:
    """Why an attack has no scores; `failed` if by its own fault."""

    reason: str
    failed: bool = False


@dataclass(frozen=True)
class _Pool:
    """What an attack scores: samples of the plan, then those borrowed from another run.

    Attributes:
        rows: The plan's samples, int64 `(n,)`.
        measured: All of them, N >= n.
        known: bool `(N,)`, which calibrate.
        member: bool `(N,)`, labels; they count where `known` is true.
        record: What calibrates, or why nothing does.
    """

    rows: NDArray[np.int64]
    measured: Measured
    known: NDArray[np.bool_]
    member: NDArray[np.bool_]
    record: Calibration

    def take(self, kept: NDArray[np.int64]) -> _Pool:
        """Some samples, in this order, without their terms."""
        ids, groups = self.measured.ids, self.measured.groups
        measured = Measured({}, tuple(ids[i] for i in kept), self.measured.audit[kept], tuple(groups[i] for i in kept))
        own = kept[kept < len(self.rows)]
        return _Pool(self.rows[own], measured, self.known[kept], self.member[kept], self.record)


class Scorer:
    """Scores the attacks of one run; each fit is done once.

    Args:
        plan: The run's plan.
        attacks: Label -> instance.
        stored: Fingerprint -> bool `(N,)`, the plan's samples that are measured, and their measurements.
        other: The run that calibrates in place of the calibration set.
    """

    def __init__(
        self,
        plan: Plan,
        attacks: Mapping[str, Attack],
        stored: Callable[[str], tuple[NDArray[np.bool_], Terms]],
        other: Other | None = None,
    ) -> None:
        self.plan, self.attacks, self.stored, self.other = plan, attacks, stored, other
        self.planned = {a.label: a for a in plan.attacks}
        self.pools: dict[tuple[str, Task], _Pool] = {}
        self.fits: dict[tuple[str, Task, frozenset[str]], Scores] = {}

    def score(self, label: str, task: Task) -> Scored:
        """Score the samples of a task that an attack has measured; only a control can tell which task it is.

        Raises:
            MiaBenchError: Nothing was measured, or what the attack itself says.
            ValueError: The attack returned no valid scores.
        """
        pool = self._pool(label, task)
        scores = self._fit(label, task)
        fitted = {str(name): float(value) for name, value in scores.fitted.items()}
        if not np.isfinite(list(fitted.values())).all():
            raise ValueError(f"what was fitted is not finite: {fitted}")
        used = pool.known if pool.record.reason is None else np.zeros_like(pool.known)
        calibrated = Calibrated(scores.values[used], pool.member[used], pool.record)
        return Scored(pool.rows, scores.values[: len(pool.rows)], tuple(map(str, scores.tags)), fitted, calibrated)

    def _fit(self, label: str, task: Task, without: frozenset[str] = frozenset()) -> Scores:
        """Scores of an attack's whole pool, calibrated without the samples of some groups."""
        key = label, task, without
        if key not in self.fits:
            self.fits[key] = self._fitted(label, task, without)
        return self.fits[key]

    def _fitted(self, label: str, task: Task, without: frozenset[str]) -> Scores:
        pool, attack = self._pool(label, task), self.attacks[label]
        known = pool.known & np.array([g not in without for g in pool.measured.groups], dtype=bool)
        measured, calibration = pool.measured, None
        if bases := self.planned[label].requires:
            terms = {base: self._out_of_fold(base, pool, known, task, without) for base in bases}
            measured = replace(measured, terms=terms)
        if pool.record.reason is None:
            part = measured.select(known)
            calibration = Measured(part.terms, part.ids, part.audit, part.groups, pool.member[known])
        elif attack.meta.calibration == "required":
            raise MiaBenchError(f"attack {label}", f"it is trained on a calibration set, and {pool.record.reason}")
        given = attack.score(measured, calibration)
        scores = given if isinstance(given, Scores) else Scores(np.asarray(given))
        values = np.asarray(scores.values, dtype=np.float64)
        if values.shape != known.shape:
            raise ValueError(f"score returned shape {values.shape} for {len(known)} samples")
        if np.isnan(values).any():
            raise ValueError(f"score returned NaN for {int(np.isnan(values).sum())} samples")
        return replace(scores, values=values)

    def _out_of_fold(
        self, base: str, pool: _Pool, known: NDArray[np.bool_], task: Task, without: frozenset[str]
    ) -> NDArray[np.float64]:
        """Scores of one attack for the samples of another's pool, `(N,)`; no known one is scored by a fit that saw it.

        What is fitted on a sample knows it too well: an attack that combines such scores would trust a memory. So for
        each fold of groups the attack is calibrated anew without it.
        """
        ids = self._pool(base, task).measured.ids
        place = {i: row for row, i in enumerate(ids)}
        at = np.array([place[i] for i in pool.measured.ids])
        values: NDArray[np.float64] = self._fit(base, task, without).values[at]
        if pool.record.reason is not None:
            return values
        rows, groups = np.flatnonzero(known), np.array(pool.measured.groups)
        named = [pool.measured.ids[i] for i in rows]
        for _, test in grouped_folds(named, groups[rows], pool.member[rows], FOLDS):
            fold = frozenset(groups[rows[test]].tolist())
            inside = np.isin(groups, list(fold))
            values[inside] = self._fit(base, task, without | fold).values[at][inside]
        return values

    def _pool(self, label: str, task: Task) -> _Pool:
        key = label, task
        if key not in self.pools:
            planned = self.planned[label]
            self.pools[key] = self._common(planned, task) if planned.requires else self._own(planned, task)
        return self.pools[key]

    def _own(self, planned: PlannedAttack, task: Task) -> _Pool:
        """What was measured for one attack."""
        samples, (found, terms) = self.plan.samples, self.stored(planned.fingerprint)
        if planned.samples is not None:  # a fuller run may have left more
            wanted = samples.first(planned.samples)
            terms, found = {name: values[wanted[found]] for name, values in terms.items()}, found & wanted
        rows = np.flatnonzero(found)
        if not len(rows):
            raise MiaBenchError("no sample was measured")
        if planned.control:  # controls see the labels of the samples they score
            usable = np.any(samples.sides(task), axis=0)[rows]
            rows, terms = rows[usable], {name: values[usable] for name, values in terms.items()}
        measured = Measured(
            terms,
            tuple(samples.id[i] for i in rows),
            samples.audit[rows],
            tuple(samples.group[i] for i in rows),
            samples.sides(task)[0][rows] if planned.control else None,
            task.names,
        )
        member = samples.is_member[rows]
        if planned.control:
            return _Pool(rows, measured, np.zeros(len(rows), dtype=bool), member, _none(CONTROL))
        if self.other is None:
            return _Pool(rows, measured, known := samples.calibrating[rows], member, self._own_record(known, member))
        borrowed = self.other.find(self.plan, planned, terms)
        if isinstance(borrowed, str):
            return _Pool(rows, measured, np.zeros(len(rows), dtype=bool), member, _none(borrowed))
        return self._lent(rows, measured, member, borrowed)

    def _own_record(self, known: NDArray[np.bool_], member: NDArray[np.bool_]) -> Calibration:
        if self.plan.calibration:
            return _none(self.plan.calibration)
        n_members, n_nonmembers = int((known & member).sum()), int((known & ~member).sum())
        if not (n_members and n_nonmembers):
            return _none("no calibration members or no non-members could be measured")
        return Calibration(source="own", n_members=n_members, n_nonmembers=n_nonmembers)

    def _lent(
        self, rows: NDArray[np.int64], measured: Measured, member: NDArray[np.bool_], borrowed: Borrowed
    ) -> _Pool:
        """With the other run's samples after the own ones."""
        assert self.other
        count = len(borrowed.ids)
        joined = Measured(
            {name: np.concatenate([values, borrowed.terms[name]]) for name, values in measured.terms.items()},
            measured.ids + borrowed.ids,
            np.concatenate([measured.audit, np.zeros(count, dtype=bool)]),
            measured.groups + borrowed.groups,
        )
        same = self.other.record.target_fingerprint == self.plan.target_fingerprint
        n_members = int(borrowed.member.sum())
        record = Calibration(
            source="same target" if same else "shadow",
            n_members=n_members,
            n_nonmembers=count - n_members,
            left_out=borrowed.left_out,
        )
        known = np.arange(len(joined.ids)) >= len(rows)
        return _Pool(rows, joined, known, np.concatenate([member, borrowed.member]), record)

    def _common(self, planned: PlannedAttack, task: Task) -> _Pool:
        """The samples that all attacks of a combination have, in the order of the first."""
        pools = [self._pool(base, task) for base in planned.requires]
        shared = set.intersection(*(set(pool.measured.ids) for pool in pools))
        rows, wanted = pools[0].rows, self.plan.samples.first(planned.samples)
        named = [i for i, name in enumerate(pools[0].measured.ids) if name in shared]
        kept = np.array([i for i in named if i >= len(rows) or wanted[rows[i]]], dtype=np.int64)
        first = pools[0].take(kept)
        if not len(first.rows):
            raise MiaBenchError(f"no sample was scored by all of {', '.join(planned.requires)}")
        gap = next((pool.record.reason for pool in pools if pool.record.reason), None)
        if gap:
            return replace(first, known=np.zeros_like(first.known), record=_none(gap))
        n_members = int((first.known & first.member).sum())
        n_nonmembers = int(first.known.sum()) - n_members
        if not (n_members and n_nonmembers):
            why = f"no calibration members or no non-members have all of {', '.join(planned.requires)}"
            return replace(first, record=_none(why))
        return replace(
            first, record=first.record.model_copy(update={"n_members": n_members, "n_nonmembers": n_nonmembers})
        )


def _none(reason: str) -> Calibration:
    return Calibration(source="none", reason=reason)


def only_scored(found: Mapping[str, Scored | Unscored]) -> dict[str, Scored]:
    """Those that have scores."""
    return {label: scores for label, scores in found.items() if isinstance(scores, Scored)}
