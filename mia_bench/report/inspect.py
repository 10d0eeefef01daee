"""What `inspect` found, for the terminal."""

from __future__ import annotations

from mia_bench.inspection import Alike, Class, Inspection, Interval, Spread
from mia_bench.report.text import json_text, pairs, printable, table

SHOWN = 5  # words, hosts and damaged images


def show_inspection(found: Inspection, as_json: bool) -> None:
    """Print tables with what a reader must know about them, or JSON."""
    if as_json:
        print(json_text(found.model_dump(mode="json")))
        return
    print(printable(f"{found.dataset}: {found.n:,} samples, {found.samples_hash[:12]}\n"))
    print(pairs(found.about) + "\n")
    print("\n\n".join(table(rows, headers, right) for rows, headers, right in tables(found)) + "\n")
    print("\n".join(printable(line) for line in notes(found)))


def tables(found: Inspection) -> list[tuple[list[list[str]], list[str], tuple[int, ...]]]:
    """Rows, headers and right-aligned columns of each table that has something to say."""
    made = [
        (
            [_image_cells(c) for c in found.classes],
            ["images", "N", "read", "damaged", "width px", "height px", "width/height", "kB", "formats"],
            (1, 2, 3),
        ),
        (
            [_caption_cells(c) for c in found.classes],
            ["captions", "N", "missing", "characters", "words"],
            (1, 2),
        ),
        (
            [_alike_cells("same file", found.exact), _alike_cells("near-duplicates", found.alike)],
            ["alike", "groups", "samples", "across classes", "across splits"],
            (1, 2, 3, 4),
        ),
        (
            [[*_auc_cells(row), ""] for row in found.blind]
            + [[*_auc_cells(found.lengths), ""]]
            + [[f"Fréchet, {found.frechet.encoder}", *frechet_cells(found)]],
            ["members against non-members", "N", "value [95 %]", "among members"],
            (1,),
        ),
    ]
    if found.words:
        rows = [[w.word, f"{w.members:.1%}", f"{w.nonmembers:.1%}", f"{w.p_value:.2g}"] for w in found.words[:SHOWN]]
        made.append((rows, ["word in captions of", "members", "non-members", "p"], (1, 2, 3)))
    if found.hosts:
        rows = [[h.host, f"{h.members:.1%}", f"{h.nonmembers:.1%}"] for h in found.hosts[:SHOWN]]
        made.append((rows, ["host of", "members", "non-members"], (1, 2)))
    if found.survival:
        rows = [
            [s.kind, f"{s.urls:,}", f"{s.tried:,}", f"{s.survived:,}", f"[{s.low:.1%}, {s.high:.1%}]"]
            for s in found.survival
        ]
        made.append((rows, ["urls of", "in the list", "tried", "survived", "share, 95 %"], (1, 2, 3)))
    return made


def notes(found: Inspection) -> list[str]:
    """What a reader of the tables must know."""
    said = ["median [5 %, 95 %] of sizes and lengths"]
    if found.hashed < found.n:
        said.append(f"near-duplicates were sought among {found.hashed:,} of {found.n:,} images")
    said.append(f"near-duplicates: hashes at most {found.near} of 64 bits apart; plain pictures are all alike")
    if any(row.value is not None for row in found.blind):
        said.append("AUC of what never asks a model, cross-validated; 0.5 where nothing tells the classes apart")
    marked = [row.label for row in [*found.blind, found.lengths] if clears(row)]
    shift = found.frechet
    if shift.low is not None and shift.floor_high is not None and shift.low > shift.floor_high:
        marked.append(f"Fréchet distance by {shift.encoder}")
    if marked:
        said.append(f"tells the classes apart without a model: {', '.join(marked)}")
    if found.frechet.value is not None:
        said.append(
            f"Fréchet distance of {found.frechet.half} + {found.frechet.half} images, mean [range] of ten draws; it "
            "depends on their number, so compare it with that among members only"
        )
    if found.words_tested:
        said.append(f"{len(found.words)} of {found.words_tested:,} words tested differ (p < 0.05, adjusted for all)")
    if found.hosts:
        said.append(f"{found.hosts_in_all:,} hosts; {found.hosts_shared or 0:.0%} of the images are on hosts of both")
    missing: dict[str, list[str]] = {}
    without = [(f"AUC of {row.label}", row.reason) for row in (*found.blind, found.lengths)]
    for name, why in [*without, ("Fréchet distance", found.frechet.reason)]:
        if why:
            missing.setdefault(why, []).append(name)
    said += [f"no {', '.join(names)}: {reason}" for reason, names in missing.items()]
    reasons: dict[str, list[str]] = {}
    for sample, reason in found.damaged.items():
        reasons.setdefault(reason, []).append(sample)
    for reason, ids in reasons.items():
        more = ", ..." if len(ids) > SHOWN else ""
        said.append(f"{len(ids)} damaged: {reason} ({', '.join(map(repr, ids[:SHOWN]))}{more})")
    return said


def clears(row: Interval) -> bool:
    """Whether its interval leaves out 0.5."""
    return row.low is not None and row.high is not None and not row.low <= 0.5 <= row.high


def class_name(kind: Class) -> str:
    """`audit members`; a split's samples of unknown membership are just that."""
    return f"{kind.split} {kind.name}"


def spread(numbers: Spread | None, digits: int = 0, scale: float = 1) -> str:
    """`320 [240, 512]`; one number where all are equal."""
    if numbers is None:
        return "–"
    middle, low, high = (f"{x / scale:.{digits}f}" for x in (numbers.median, numbers.low, numbers.high))
    return middle if numbers.least == numbers.most else f"{middle} [{low}, {high}]"


def _image_cells(kind: Class) -> list[str]:
    formats = ", ".join(f"{name} {count / sum(kind.formats.values()):.0%}" for name, count in kind.formats.items())
    return [
        class_name(kind),
        f"{kind.n:,}",
        f"{kind.read:,}",
        f"{kind.damaged:,}",
        spread(kind.width),
        spread(kind.height),
        spread(kind.aspect, 2),
        spread(kind.bytes, 1, 1000),
        formats or "–",
    ]


def _caption_cells(kind: Class) -> list[str]:
    missing = f"{1 - kind.captioned / kind.n:.1%}"
    return [class_name(kind), f"{kind.n:,}", missing, spread(kind.characters), spread(kind.words)]


def _alike_cells(name: str, alike: Alike) -> list[str]:
    return [name, *(f"{n:,}" for n in (alike.groups, alike.samples, alike.across_classes, alike.across_splits))]


def _auc_cells(row: Interval) -> list[str]:
    count = f"{row.members:,} + {row.nonmembers:,}"
    if row.value is None:
        return [f"AUC, {row.label}", count, "–"]
    return [f"AUC, {row.label}", count, f"{row.value:.3f} [{row.low:.3f}, {row.high:.3f}]"]


def frechet_cells(found: Inspection) -> list[str]:
    """Sizes, distance of the classes and among members; dashes where there is none."""
    shift = found.frechet
    if shift.value is None:
        return ["–", "–", "–"]
    value = f"{shift.value:.4g} [{shift.low:.4g}, {shift.high:.4g}]"
    return [f"{shift.half} + {shift.half}", value, f"{shift.floor:.4g} [{shift.floor_low:.4g}, {shift.floor_high:.4g}]"]
