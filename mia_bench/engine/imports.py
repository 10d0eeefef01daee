"""From files of scores to a run folder like any other."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

import mia_bench
from mia_bench.dataset import Split
from mia_bench.engine.label import Label
from mia_bench.engine.plan import Plan, PlannedAttack, gap_of, read_plan
from mia_bench.engine.samples import SampleTable
from mia_bench.engine.score import score_run
from mia_bench.engine.score_files import MAX_SCORES, ScoreRows, read_score_file
from mia_bench.engine.select import Options
from mia_bench.errors import NothingError, UnavailableError, UsageError, brief
from mia_bench.hashing import sha256_of
from mia_bench.imported import IMPORTED, TERM, UNKNOWN_TARGET, Imported
from mia_bench.result import Result, Source
from mia_bench.store import ARTIFACTS, Store

UNKNOWN = "unknown"
MAX_LABEL = 100
SPLITS: tuple[str, ...] = get_args(Split)


@dataclass(frozen=True)
class Given:
    """A file of the command line; `attack` where the user named it: `NAME=FILE`."""

    path: Path
    attack: str = ""
    calibration: bool = False

    @classmethod
    def parse(cls, text: str, calibration: bool = False) -> Given:
        name, _, rest = text.partition("=")
        named = bool(name and rest) and not Path(text).exists()
        return cls(Path(rest), name, calibration) if named else cls(Path(text), "", calibration)


@dataclass(frozen=True)
class ImportOptions:
    """What a user can say of an import.

    Attributes:
        files: Of the audit set, unless they have a column `split`, and of the calibration set.
        columns: Role -> column.
        options: Attack -> parameter of `Imported` -> value; key "" is for all attacks.
        ids_per_split: Whether ids are unique within a split alone; those outside the audit set get its name in front.
        dataset: What to call the samples; the first file's name if empty.
        target: What to call the target.
        command: As the user typed it.
    """

    files: tuple[Given, ...]
    out: Path
    columns: Mapping[str, str] = field(default_factory=dict)
    options: Options = field(default_factory=dict)
    ids_per_split: bool = False
    dataset: str = ""
    target: str = UNKNOWN_TARGET
    command: str = ""


@dataclass(frozen=True, eq=False)
class _Part:
    """The rows of one file that are of one attack: samples (codes of all files together), splits, timesteps."""

    rows: ScoreRows
    at: NDArray[np.int64]
    sample: NDArray[np.int64]
    timestep: NDArray[np.int64]


def import_scores(options: ImportOptions) -> Result:
    """Read files of scores and write a run folder that holds them.

    Raises:
        UnavailableError: A file cannot be read, or what it holds is no list of scores; file and row are named.
        UsageError: The folder holds a run that was measured, or files and options do not go together.
        NothingError: There is no audited sample.
    """
    samples = _Samples(options.ids_per_split)
    attacks = _collect(options, samples)
    table, kept = samples.table()
    if not table.audit.any():
        raise NothingError("import", "no sample is of the audit set", "give a file that is not --calibration")
    planned, terms = [], {}
    for label, parts in attacks.items():
        codes, values = _grid(label, parts, samples)
        params = _params(label, options.options)
        own = Imported.Params.model_fields
        rows = kept[codes]
        order = np.argsort(rows)
        rows, values = rows[order], values[order]
        fingerprint = _identity(label, [table.id[i] for i in rows], values)
        planned.append(
            PlannedAttack(
                label=label,
                name=IMPORTED,
                control=False,
                params=params.model_dump(mode="json"),
                changed=tuple(n for n, f in own.items() if getattr(params, n) != f.default),
                queries=0,
                caption="unused",
                fingerprint=fingerprint,
            )
        )
        if params.reduce == "only" and values.shape[1] > 1:
            why = f"each sample has {values.shape[1]} scores"
            raise UsageError(
                f"attack {label}", why, f"say what becomes of them: --reduce mean, or -o {label}.reduce=sum"
            )
        terms[fingerprint] = (rows, values)
    if unknown := sorted(options.options.keys() - {"", *attacks}):
        known = f"the files hold {', '.join(attacks)}"
        raise UsageError(f"option for {unknown[0]!r}", known, "name one of these, or leave it out")
    plan = Plan(
        dataset=options.dataset or options.files[0].path.name.partition(".")[0],
        dataset_revision="",
        target=options.target,
        target_kind="unknown",
        target_fingerprint=UNKNOWN,
        uses_captions=False,
        seed=None,
        noise=UNKNOWN,
        dtype=UNKNOWN,
        latent="unknown",
        independent_noise=False,
        calibration=gap_of([m for m, s in zip(table.member, table.split, strict=True) if s == "calibration"]),
        captions=UNKNOWN,
        attacks=tuple(planned),
        skipped=(),
        samples=table,
        command=options.command,
        sources=_sources(options),
    )
    return _write(plan, terms, options.out)


class _Samples:
    """All samples of all files, each with one label and one split."""

    def __init__(self, ids_per_split: bool) -> None:
        self.ids_per_split = ids_per_split
        self.codes: dict[str, int] = {}
        self.known: list[tuple[str, str, int, ScoreRows, int]] = []  # id, split, member, and the row that said so

    def take(self, rows: ScoreRows, default: Split) -> NDArray[np.int64]:
        """Codes of a file's samples, int64 `(R,)`."""
        splits = rows.split.codes if rows.split else np.zeros(len(rows.score), dtype=np.int64)
        names = [name or default for name in rows.split.names] if rows.split else [default]
        for i, name in enumerate(names):
            if name not in SPLITS:
                row = int(np.argmax(splits == i))
                raise rows.wrong(row, f"split {name!r} is none of {', '.join(SPLITS)}", "name one of these")
        keys = np.stack([rows.sample.codes, splits, rows.member.astype(np.int64)])
        distinct, first, which = np.unique(keys, axis=1, return_index=True, return_inverse=True)
        codes = np.empty(distinct.shape[1], dtype=np.int64)
        for i in np.argsort(first):  # in the order of the file
            sample, split, member = distinct[:, i].tolist()
            codes[i] = self._code(rows.sample.names[sample], names[split], member, rows, int(first[i]))
        found: NDArray[np.int64] = codes[which.ravel()]
        return found

    def _code(self, sample: str, split: str, member: int, rows: ScoreRows, row: int) -> int:
        name = f"{split}:{sample}" if self.ids_per_split and split != "audit" else sample
        if name not in self.codes:
            self.codes[name] = len(self.known)
            self.known.append((name, split, member, rows, row))
            return self.codes[name]
        code = self.codes[name]
        _, before, other, earlier, at = self.known[code]
        if before != split:
            why = f"sample {sample!r} is of the {before} set too ({earlier.path}, row {at + 1})"
            raise rows.wrong(row, why, "keep splits apart; if each counts its ids anew, add --ids-per-split")
        if other != member:
            said = {1: "a member", 0: "a non-member", -1: "of unknown membership"}
            why = f"sample {sample!r} is {said[member]} here and {said[other]} in {earlier.path}, row {at + 1}"
            raise rows.wrong(row, why, "give every sample one label")
        return code

    def table(self) -> tuple[SampleTable, NDArray[np.int64]]:
        """The samples in the order of their ids' hashes, as everywhere, and the place of each code in it."""
        hashed = [hashlib.sha256(name.encode()).digest() for name, *_ in self.known]
        order = sorted(range(len(hashed)), key=hashed.__getitem__)
        place = np.empty(len(order), dtype=np.int64)
        place[order] = np.arange(len(order))
        ids, splits, members = zip(*(self.known[i][:3] for i in order), strict=True)
        blank = ("",) * len(ids)  # nobody knows what their images were
        table = SampleTable(
            id=ids,
            digest=blank,
            split=splits,
            member=tuple(None if m < 0 else bool(m) for m in members),
            group=ids,
            captioned=(False,) * len(ids),
        )
        return table, place


def _collect(options: ImportOptions, samples: _Samples) -> dict[str, list[_Part]]:
    """Attack -> its rows of every file."""
    found: dict[str, list[_Part]] = {}
    steps: dict[str, int] = {}
    total = 0
    for given in options.files:
        rows = read_score_file(given.path, options.columns)
        total += len(rows.score)
        if total > MAX_SCORES:
            raise UnavailableError("import", f"more than {MAX_SCORES:,} scores", "import fewer files at once")
        code = samples.take(rows, "calibration" if given.calibration else "audit")
        step = np.full(len(rows.score), -1)
        if rows.timestep:
            own = [steps.setdefault(name, len(steps)) for name in rows.timestep.names]
            step = np.array(own, dtype=np.int64)[rows.timestep.codes]
        if given.attack and rows.attack and len(rows.attack.names) > 1:
            what = f"{given.attack}={given.path}"
            raise UsageError(what, f"it holds {len(rows.attack.names)} attacks", "leave the name out")
        labels = [given.attack] if given.attack else rows.attack.names if rows.attack else [_stem(given.path)]
        which = rows.attack.codes if rows.attack else np.zeros(len(rows.score), dtype=np.int64)
        for i, label in enumerate(labels):
            if len(label) > MAX_LABEL or not _is_label(label):
                why = f"not a name, name@preset or name[encoder] of up to {MAX_LABEL} characters"
                raise UsageError(f"attack {label[:MAX_LABEL]!r} of {given.path}", why, "name it: NAME=FILE")
            at = np.flatnonzero(which == i)
            found.setdefault(label, []).append(_Part(rows, at, code[at], step[at]))
    return found


def _is_label(text: str) -> bool:
    parts = Label.parse(text)
    return bool(parts.name) and text.isprintable() and not set(parts.name) & set("@[]*?,=")


def _params(label: str, options: Options) -> Imported.Params:
    given = {**options.get("", {}), **options.get(label, {})}
    try:
        return Imported.Params.model_validate(given)
    except ValueError as error:
        known = ", ".join(Imported.Params.model_fields)
        raise UsageError(f"options of {label}", brief(error), f"parameters of an import: {known}") from None


def _stem(path: Path) -> str:
    return "".join(c if c.isalnum() or c in "-_." else "-" for c in path.name.partition(".")[0]) or "scores"


def _grid(label: str, parts: Sequence[_Part], samples: _Samples) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Samples (codes, int64 `(n,)`) and their scores `(n, T)`, timesteps in the order they first occur.

    Raises:
        UnavailableError: A sample has a timestep twice, or lacks one that another has.
        UsageError: Two files without timesteps have the same sample: they may be of two attacks.
    """
    sample, step, score = (
        np.concatenate(c) for c in zip(*((p.sample, p.timestep, p.rows.score[p.at]) for p in parts), strict=True)
    )
    file = np.repeat(np.arange(len(parts)), [len(p.at) for p in parts])
    row = np.concatenate([p.at for p in parts])

    def where(i: int) -> str:
        return f"{parts[file[i]].rows.path}, row {row[i] + 1}"

    if timeless := bool((step < 0).all()):  # a sample's scores are told apart by their order
        order = np.argsort(sample, kind="stable")
        twice = (np.diff(sample[order]) == 0) & (np.diff(file[order]) != 0)
        if twice.any():
            one, other = order[int(np.argmax(twice)) :][:2]
            name = samples.known[sample[one]][0]
            why = f"sample {name!r} is in {where(one)}, and in {where(other)}, without timesteps"
            fix = "of two attacks, name each: NAME=FILE; of one, add a column `timestep`"
            raise UsageError(f"attack {label}", why, fix)
        starts = np.flatnonzero(np.diff(sample[order], prepend=-1))
        counts = np.diff([*starts, len(order)])
        step = np.empty_like(step)
        step[order] = np.arange(len(order)) - np.repeat(starts, counts)
    elif (step < 0).any():
        other = parts[file[int(np.argmax(step < 0))]].rows.path
        raise UnavailableError(f"scores {other}", f"{label} has timesteps in another file, none here", "add the column")
    codes, place = np.unique(sample, return_inverse=True)
    known, column = np.unique(step, return_inverse=True)
    cell = place.ravel() * len(known) + column.ravel()
    counts = np.bincount(cell, minlength=len(codes) * len(known))
    if (counts > 1).any():
        first, again = np.flatnonzero(cell == int(np.argmax(counts > 1)))[:2]
        why = f"{label} has sample {samples.known[sample[again]][0]!r} at one timestep twice, first in {where(first)}"
        raise UnavailableError(f"scores {where(again)}", why, "keep one of the two")
    if (counts == 0).any():
        lacking = int(np.argmax(counts == 0)) // len(known)
        own = int(counts.reshape(len(codes), -1)[lacking].sum())
        found = where(int(np.argmax(place.ravel() == lacking)))
        twice = "; if rows are doubled, remove them" if timeless else ""
        why = f"{label} has {own} scores of sample {samples.known[codes[lacking]][0]!r}, {len(known)} of others"
        raise UnavailableError(f"scores {found}", why, f"give every sample the same timesteps{twice}")
    values = np.empty((len(codes), len(known)))
    values[place.ravel(), column.ravel()] = score
    if len(known) > 1 and np.isinf(values).any():
        at = int(np.argmax(np.isinf(score)))
        raise UnavailableError(f"scores {where(at)}", "an infinite score has no sum or mean", "reduce them before")
    return codes, values


def _identity(label: str, ids: Sequence[str], values: NDArray[np.float64]) -> str:
    """Hash of what was imported: equal where the scores are."""
    said = hashlib.sha256("\0".join([IMPORTED, label, str(values.shape), *ids]).encode())
    said.update(np.ascontiguousarray(values).tobytes())
    return said.hexdigest()[:24]


def _sources(options: ImportOptions) -> tuple[Source, ...]:
    return tuple(
        Source(file=str(g.path), sha256=sha256_of(g.path), split="calibration" if g.calibration else "audit")
        for g in options.files
    )


def _write(plan: Plan, terms: Mapping[str, tuple[NDArray[np.int64], NDArray[np.float64]]], out: Path) -> Result:
    store = Store(out)
    if (out / "run.json").exists() and not read_plan(store).sources:
        why = "it holds a run that was measured, which importing would replace"
        raise UsageError(f"run folder {out}", why, "choose another folder with --out")
    made: dict[str, Any] = {IMPORTED: True, "mia_bench": mia_bench.__version__, "time": _now()}
    with store.locked():
        store.remove("results.json", "scores.parquet", ARTIFACTS, "measurements")
        store.write_json("run.json", plan.model_dump(mode="json"))
        for fingerprint, (rows, values) in terms.items():
            ids = [plan.samples.id[i] for i in rows]
            store.add(ids, [""] * len(ids), {fingerprint: {TERM: values}}, made)
        instances = {a.label: Imported(Imported.Params.model_validate(a.params)) for a in plan.attacks}
        (result,) = score_run(plan, instances, store)
    return result


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
