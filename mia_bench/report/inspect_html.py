"""What `inspect` found, as one page with pictures that needs nothing else: no network, no script."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mia_bench.dataset import Sample
from mia_bench.errors import SampleError
from mia_bench.inspection import Alike, Class, Inspection
from mia_bench.report.inspect import class_name, notes, spread, tables
from mia_bench.report.page import KINDS, SAID, render, short, thumbnail, write

EXAMPLES, LOTS, IN_LOT = 12, 20, 6  # of each class; groups of each kind; pictures of a group
MEASURES = {"width": "width, px", "height": "height, px", "aspect": "width/height", "bytes": "bytes"}
LENGTHS = {"characters": "caption, characters", "words": "caption, words"}


def write_page(path: Path, found: Inspection, samples: Sequence[Sample]) -> None:
    """Write the page.

    Args:
        path: The file; replaced if it exists.
        found: What it says.
        samples: All of the dataset, in the order in which they are shown.

    Raises:
        UsageError: The file cannot be written.
    """
    write(path, page(found, samples))


def page(found: Inspection, samples: Sequence[Sample]) -> str:
    """The page's text."""
    by_id = {s.id: s for s in samples}
    chosen = {s.id for s in samples} - found.damaged.keys()
    return render(
        "inspect.html",
        found=found,
        tables=tables(found),
        notes=notes(found),
        bars=_bars(found.classes),
        examples=[(class_name(kind), _examples(kind, samples, chosen)) for kind in found.classes],
        alike=[
            ("Same file", found.exact.groups, _lots(found.exact, by_id)),
            ("Near-duplicates", found.alike.groups, _lots(found.alike, by_id)),
        ],
    )


def _bars(classes: Sequence[Class]) -> list[tuple[str, list[dict[str, Any]]]]:
    """Histograms, those of one quantity to one scale; none where all values are equal."""
    made = []
    for field, name in (MEASURES | LENGTHS).items():
        spreads = [(kind, s) for kind in classes if (s := getattr(kind, field)) is not None]
        if not spreads or min(s.least for _, s in spreads) == max(s.most for _, s in spreads):
            continue
        highest = max(max(s.bins) for _, s in spreads) or 1
        rows = [
            {
                "kind": KINDS[kind.member],
                "name": class_name(kind),
                "text": spread(s, 2 if field == "aspect" else 0),
                "heights": [round(100 * share / highest) for share in s.bins],
            }
            for kind, s in spreads
        ]
        made.append((name, rows))
    return made


def _examples(kind: Class, samples: Sequence[Sample], chosen: set[str]) -> list[Mapping[str, Any]]:
    own = [s for s in samples if (s.split, s.member) == (kind.split, kind.member) and s.id in chosen]
    return [_item(s) for s in own[:EXAMPLES]]


def _lots(alike: Alike, by_id: Mapping[str, Sample]) -> list[dict[str, Any]]:
    """The first pictures of the first groups, of every class and split there is."""
    made = []
    for ids in alike.examples[:LOTS]:
        firsts: dict[object, str] = {}
        for i in ids:
            firsts.setdefault((by_id[i].split, by_id[i].member), i)
        shown = [*firsts.values(), *(i for i in ids if i not in firsts.values())][:IN_LOT]
        made.append({"items_": [_item(by_id[i]) for i in shown], "more": len(ids) - len(shown)})
    return made


def _item(sample: Sample) -> dict[str, Any]:
    item = {
        "id": sample.id,
        "kind": KINDS[sample.member],
        "where": f"{sample.split} {SAID[sample.member]}",
        "caption": short(sample.caption),
        "image": "",
        "reason": "",
    }
    try:
        image = sample.open()
    except SampleError as error:
        return {**item, "reason": error.why or error.what}
    return {**item, "image": thumbnail(image)}
