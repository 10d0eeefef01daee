"""Is what was built what is shipped? `python check.py WORK`; also writes `WORK/rebuild.json`.

Split and images must be the same bytes. Weights come from another machine's sums, so their audit must agree: each
attack's AUC on a rebuilt target lies in the interval recorded for the shipped one.
"""

from __future__ import annotations

import sys
from pathlib import Path

from safetensors.torch import load_file
from stages import DATA
from targets import link_shared
from trajectory import audit

from mia_bench.engine.provenance import environment
from mia_bench.engine.run import read_result
from mia_bench.report.text import json_text, table

RESULTS = Path(__file__).parents[1] / "results"


def same_files(work: Path) -> list[str]:
    """Split and images that differ from the shipped ones."""
    names = ("fluent_emoji/split.csv", "fluent_emoji/images.png", "emoji/tokenizer/tokenizer.json")
    return [name for name in names if (work / name).read_bytes() != (DATA / name).read_bytes()]


def weights(work: Path) -> list[list[object]]:
    """Largest difference of each file of weights, and the largest weight."""
    rows = []
    for shipped in sorted((DATA / "emoji").glob("**/*.safetensors")):
        name = shipped.relative_to(DATA)
        ours, theirs = load_file(work / name), load_file(shipped)
        apart = max(float((ours[k].float() - theirs[k].float()).abs().max()) for k in theirs)
        largest = max(float(value.float().abs().max()) for value in theirs.values())
        rows.append([str(name), "same bytes" if apart == 0 else f"{apart:.2g}", f"{largest:.3g}"])
    return rows


def audits(work: Path) -> list[list[object]]:
    """Each attack's AUC on each rebuilt target beside the interval recorded for the shipped one."""
    rows: list[list[object]] = []
    for name in ("realworld", "overtrain", "mirror"):
        recorded = read_result(RESULTS / f"emoji-{name}-seed0.json")
        link_shared(work / "emoji", work / "pipelines" / name)
        _, result = audit(work, f"check-{name}", work / "pipelines" / name, mirror=name == "mirror")
        found = {row.label: row.evaluation for row in result.rows if not row.control}
        for row in recorded.rows:
            if row.control or row.evaluation is None or found.get(row.label) is None:
                continue
            shipped, now = row.evaluation.auc, found[row.label].auc
            inside = shipped.low <= now.value <= shipped.high
            known = f"{shipped.value:.3f} [{shipped.low:.3f}, {shipped.high:.3f}]"
            rows.append([f"emoji-{name}", row.label, f"{now.value:.3f}", known, "" if inside else "OUTSIDE"])
    return rows


def seconds(work: Path) -> dict[str, int]:
    """What each stage of the build took."""
    return {path.name.removeprefix("done-"): int(path.read_text()) for path in sorted(work.glob("done-*"))}


if __name__ == "__main__":
    place = Path(sys.argv[1])
    differing, apart, rows = same_files(place), weights(place), audits(place)
    print("split, images, tokenizer:", "the same bytes" if not differing else f"DIFFER: {', '.join(differing)}")
    print("\n" + table(apart, ["weights", "largest difference", "largest weight"]))
    print("\n" + table(rows, ["target", "attack", "AUC", "recorded", ""]))
    record = {
        "benchmark": "rebuild",
        "differing": differing,
        "weights": apart,
        "audits": rows,
        "seconds": seconds(place),
    }
    record["environment"] = environment("cpu")
    (place / "rebuild.json").write_text(json_text(record) + "\n", encoding="utf-8")
    sys.exit(1 if differing or any(row[-1] for row in rows) else 0)
