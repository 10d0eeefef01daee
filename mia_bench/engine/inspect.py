"""What a dataset is like before any model is asked: counts, sizes, captions, duplicates, how its classes differ."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from mia_bench.attack import Access, Attack, Control, Measured
from mia_bench.dataset import Dataset, Sample
from mia_bench.encoder import Encoder, Offer
from mia_bench.engine.blame import blaming, fault
from mia_bench.engine.encoders import at_hand, resolver
from mia_bench.engine.line_cache import SHA256
from mia_bench.engine.look import Look, Looker
from mia_bench.engine.named import open_dataset
from mia_bench.engine.prepare import DEFAULT_DATASET, open_device
from mia_bench.engine.samples import SampleTable, take
from mia_bench.engine.select import make_params
from mia_bench.engine.splits import joined
from mia_bench.errors import MiaBenchError
from mia_bench.inspection import Alike, Class, Frechet, Host, Inspection, Interval, Spread, Survived, Word
from mia_bench.metrics import auc_interval
from mia_bench.metrics.shift import frechet_shift, word_shift
from mia_bench.near import NEAR, near_groups

if TYPE_CHECKING:
    from mia_bench.plugins import Registry

ENCODERS = ("efficientnet", "emoji-clip")  # the first at hand; both need no network
CLOSER = 1000  # samples of each class that controls and the encoder see
BINS = 10
EXAMPLES, WORDS, HOSTS = 50, 20, 20  # kept in the record
LABELS = ("url", "final_url")  # under which datasets keep where an image comes from
ABOUT = ("summary", "construction", "biases", "licence", "citation", "revision")
Key = TypeVar("Key")


def inspect_dataset(
    registry: Registry, spec: str | None = None, limit: int | None = None, encoder: str | None = None
) -> tuple[Inspection, list[Sample]]:
    """Read a dataset and its images.

    Args:
        registry: Knows the dataset, the controls and the encoders.
        spec: `name` or `name:argument`.
        limit: At most so many images of each class in each split are read; all if None. Counts, captions and equal
            files are of all samples.
        encoder: Name of the one whose embeddings are compared; the first of `ENCODERS` at hand if None.

    Returns:
        What was found, and the samples, in the order in which a run would take them.

    Raises:
        MiaBenchError: The dataset cannot be read, or the encoder is unknown or not at hand.
    """
    spec = spec or DEFAULT_DATASET
    with blaming("dataset", spec, registry.datasets.get(spec.partition(":")[0], Dataset)):
        dataset = open_dataset(registry, spec)
        samples = take(dataset.samples(), None)
        survival = [Survived.model_validate(row, from_attributes=True) for row in getattr(dataset, "survival", list)()]
    chosen = take(samples, limit)
    closer = [s for s in take(chosen, CLOSER) if s.split == "audit" and s.member is not None]
    closer = closer if len({s.member for s in closer}) == 2 else []
    controls, lens = _controls(registry), _encoder(registry, encoder)
    measuring = {label: c for label, c in controls.items() if _first(controls, c) == label}
    looks = Looker(measuring, lens, {s.id for s in closer}, open_device(None) if closer else "cpu").all(chosen)
    hashes = {s.id: s.near for s in samples if s.near is not None}
    hashes |= {i: look.near for i, look in looks.items() if look.near is not None}
    groups = joined(samples, hashes)
    group = {s.id: str(g) for s, g in zip(samples, groups.tolist(), strict=True)}
    closer = [s for s in closer if not looks[s.id].reason]
    once = list({group[s.id]: s for s in reversed(samples) if s.split == "audit" and s.member is not None}.values())
    words, tested = _words(once)
    hosts, hosts_in_all, shared = _hosts([s for s in samples if s.member is not None])
    return Inspection(
        dataset=spec,
        about={name: getattr(dataset.meta, name) for name in ABOUT},
        n=len(samples),
        samples_hash=SampleTable.of(samples).digest_of_all,
        classes=tuple(_classes(samples, looks)),
        limit=limit,
        hashed=len(hashes),
        near=NEAR,
        exact=_alike(samples, {s.id: s.content for s in samples if SHA256.fullmatch(s.content)}),
        alike=_alike(samples, _near(samples, hashes), distinct=True),
        blind=tuple(_blind(label, c, _first(controls, c), closer, looks, group) for label, c in controls.items()),
        frechet=_frechet(lens, closer, looks, group),
        lengths=_lengths(once),
        words=words[:WORDS],
        words_tested=tested,
        hosts=hosts,
        hosts_in_all=hosts_in_all,
        hosts_shared=shared,
        survival=tuple(survival),
        damaged={i: look.reason for i, look in looks.items() if look.reason},
    ), samples


def _controls(registry: Registry) -> dict[str, Attack]:
    """Every control that asks no target, once for each preset, by label."""
    made: dict[str, Attack] = {}
    for name, cls in sorted(registry.attacks.items()):
        if issubclass(cls, Control) and cls.meta.access == Access.NONE and not cls.meta.needs:
            for label in (name, *(f"{name}@{preset}" for preset in cls.presets)):
                made[label] = cls(make_params(cls, label, {}).resolved("pixel"))
    return made


def _first(controls: Mapping[str, Attack], control: Attack) -> str:
    """The label under which what it measures is measured: presets may share that."""

    def key(one: Attack) -> tuple[type, str]:
        return type(one), json.dumps(one.params.measuring(), sort_keys=True, default=str)

    return next(label for label, one in controls.items() if key(one) == key(control))


def _encoder(registry: Registry, name: str | None) -> Encoder:
    if name is None:
        name = next((n for n in ENCODERS if n in registry.encoders and at_hand(registry.encoders[n])), ENCODERS[-1])
    return resolver(registry, "pixel")(name, frozenset({Offer.EMBED}), "inspect")


def _classes(samples: Sequence[Sample], looks: Mapping[str, Look]) -> list[Class]:
    """Counts and spreads of each class in each split; bins are the same for all classes."""
    lots: dict[tuple[str, bool | None], list[Sample]] = defaultdict(list)
    for sample in samples:
        lots[sample.split, sample.member].append(sample)
    order = ("audit", "calibration", "memorised"), (True, False, None)
    kinds = sorted(lots, key=lambda kind: (order[0].index(kind[0]), order[1].index(kind[1])))
    numbers: dict[str, dict[tuple[str, bool | None], list[float]]] = defaultdict(dict)
    for kind in kinds:
        captions = [s.caption for s in lots[kind] if s.caption]
        seen = [look for s in lots[kind] if (look := looks.get(s.id)) and not look.reason]
        numbers["characters"][kind] = [len(c) for c in captions]
        numbers["words"][kind] = [len(c.split()) for c in captions]
        numbers["width"][kind] = [look.width for look in seen]
        numbers["height"][kind] = [look.height for look in seen]
        numbers["aspect"][kind] = [look.width / look.height for look in seen]
        numbers["bytes"][kind] = [look.bytes for look in seen if look.bytes is not None]
    spreads = {name: _spreads(by_kind) for name, by_kind in numbers.items()}
    made = []
    for kind in kinds:
        seen = [look for s in lots[kind] if (look := looks.get(s.id))]
        made.append(
            Class(
                split=kind[0],
                member=kind[1],
                n=len(lots[kind]),
                captioned=len(numbers["characters"][kind]),
                read=sum(not look.reason for look in seen),
                damaged=sum(bool(look.reason) for look in seen),
                formats=dict(Counter(look.format for look in seen if look.format).most_common()),
                **{name: spread[kind] for name, spread in spreads.items()},
            )
        )
    return made


def _spreads(numbers: Mapping[Key, Sequence[float]]) -> dict[Key, Spread | None]:
    """Quantiles, and shares of ten bins between the 1st and 99th percentile of all, equal on a log scale."""
    everything = np.array([x for values in numbers.values() for x in values], dtype=np.float64)
    if not everything.size:
        return dict.fromkeys(numbers)
    least, most = np.log(np.maximum(np.percentile(everything, [1, 99]), 1e-9))
    edges = np.linspace(least, max(most, least + 1e-9), BINS + 1)[1:-1]
    spreads: dict[Key, Spread | None] = {}
    for kind, values in numbers.items():
        if not len(values):
            spreads[kind] = None
            continue
        counts = np.bincount(np.searchsorted(edges, np.log(np.maximum(values, 1e-9)), "right"), minlength=BINS)
        quantiles = np.percentile(values, [0, 5, 50, 95, 100]).tolist()
        bins = tuple((counts / len(values)).round(4).tolist())
        names = ("least", "low", "median", "high", "most")
        spreads[kind] = Spread(**dict(zip(names, quantiles, strict=True)), bins=bins)
    return spreads


def _near(samples: Sequence[Sample], hashes: Mapping[str, int]) -> dict[str, str]:
    ids = [s.id for s in samples if s.id in hashes]
    return dict(zip(ids, map(str, near_groups([hashes[i] for i in ids]).tolist()), strict=True))


def _alike(samples: Sequence[Sample], lot_of: Mapping[str, str], distinct: bool = False) -> Alike:
    """Groups of two and more; only those with more than one content if `distinct`."""
    lots: dict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        if sample.id in lot_of:
            lots[lot_of[sample.id]].append(sample)
    groups = [lot for lot in lots.values() if len(lot) > 1 and (not distinct or len({s.content for s in lot}) > 1)]
    mixed = [len({s.member for s in lot} - {None}) > 1 for lot in groups]
    spread = [len({s.split for s in lot}) > 1 for lot in groups]
    order = sorted(range(len(groups)), key=lambda i: (-mixed[i], -spread[i], -len(groups[i]), groups[i][0].id))
    return Alike(
        groups=len(groups),
        samples=sum(map(len, groups)),
        across_classes=sum(mixed),
        across_splits=sum(spread),
        examples=tuple(tuple(s.id for s in groups[i]) for i in order[:EXAMPLES]),
    )


def _interval(label: str, values: NDArray[np.float64], member: Iterable[bool | None]) -> Interval:
    is_member = np.array([m is True for m in member], dtype=bool)
    counts = {"members": int(is_member.sum()), "nonmembers": int((~is_member).sum())}
    found = auc_interval(values, is_member)
    return Interval(label=label, **counts, value=found.value, low=found.low, high=found.high, reason=found.reason)


def _blind(
    label: str,
    control: Attack,
    measured_as: str,
    samples: Sequence[Sample],
    looks: Mapping[str, Look],
    group: Mapping[str, str],
) -> Interval:
    """What a control tells of membership, out of fold."""
    if faults := [f for s in samples if (f := looks[s.id].faults.get(measured_as))]:
        return Interval(label=label, reason=f"measure failed: {faults[0]}")
    if not samples:
        return Interval(label=label, reason="no members or no non-members to tell apart")
    parts = [looks[s.id].terms[measured_as] for s in samples]
    terms = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    member, ids = np.array([s.member is True for s in samples]), tuple(s.id for s in samples)
    measured = Measured(terms, ids, np.ones(len(ids), dtype=bool), tuple(group[i] for i in ids), member)
    try:
        given: Any = control.score(measured, None)
        return _interval(label, np.asarray(getattr(given, "values", given), dtype=np.float64), member.tolist())
    except MiaBenchError as error:
        return Interval(label=label, reason=error.why or error.what)
    except Exception as error:
        return Interval(label=label, reason=f"score failed: {fault(error, type(control))}")


def _frechet(
    encoder: Encoder, samples: Sequence[Sample], looks: Mapping[str, Look], group: Mapping[str, str]
) -> Frechet:
    """Of one sample of each group: near-duplicates in both halves of the members would lower the floor."""
    once = list({group[s.id]: s for s in reversed(samples)}.values())
    vectors = [vector for s in once if (vector := looks[s.id].embedding) is not None]
    try:
        found = frechet_shift(vectors, [s.member is True for s in once])
    except ValueError as error:
        return Frechet(encoder=encoder.meta.name, reason=str(error))
    return Frechet(encoder=encoder.meta.name, **vars(found))


def _lengths(samples: Sequence[Sample]) -> Interval:
    captioned = [s for s in samples if s.caption]
    if not captioned:
        why = "no captions" if samples else "no audited sample has a label"
        return Interval(label="caption length", reason=why)
    lengths = np.array([len(s.caption or "") for s in captioned], dtype=np.float64)
    return _interval("caption length", lengths, [s.member for s in captioned])


def _words(samples: Sequence[Sample]) -> tuple[tuple[Word, ...], int]:
    captions = {m: [s.caption for s in samples if s.caption and s.member is m] for m in (True, False)}
    found, tested = word_shift(captions[True], captions[False])
    return tuple(
        Word(
            word=row.word,
            members=row.members / len(captions[True]),
            nonmembers=row.nonmembers / len(captions[False]),
            p_value=row.p_value,
        )
        for row in found
    ), tested


def _hosts(samples: Sequence[Sample]) -> tuple[tuple[Host, ...], int, float | None]:
    """The most frequent hosts, how many there are, and the share of images on hosts of both classes."""
    counts = {True: Counter[str](), False: Counter[str]()}
    for sample in samples:
        if host := _host(sample):
            counts[bool(sample.member)][host] += 1
    both = counts[True] + counts[False]
    if not both:
        return (), 0, None
    totals = {m: max(1, c.total()) for m, c in counts.items()}
    top = sorted(both, key=lambda h: (-max(counts[m][h] / totals[m] for m in counts), h))[:HOSTS]
    shares = {h: {m: counts[m][h] / totals[m] for m in counts} for h in top}
    rows = [Host(host=h, members=share[True], nonmembers=share[False]) for h, share in shares.items()]
    shared = sum(n for h, n in both.items() if counts[True][h] and counts[False][h]) / both.total()
    return tuple(rows), len(both), shared


def _host(sample: Sample) -> str:
    for name in LABELS:
        try:
            if host := urlsplit(str(sample.labels.get(name, ""))).hostname:
                return host
        except ValueError:  # not a url
            continue
    return ""
