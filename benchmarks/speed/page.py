"""Fill the tables of docs/performance.md from recorded results: `python benchmarks/speed/page.py [--check]`.

A table whose record is not there yet is left out.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1]))

from pages import RESULTS, ROOT, fill, table
from timing import shown

LAION_MI = 40_270  # images
PER_QUERY = {"10 ms": 0.01, "64 ms": 0.064, "1 s": 1.0}  # the second as CLiD's paper has it on an A6000


def read(name: str) -> Any:
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def where(record: dict[str, Any]) -> str:
    """The machine of a record, in words."""
    environment = record["environment"]
    threads = f", {environment['threads']} threads" if "threads" in environment else ""
    device, libraries = environment["device"], environment["libraries"]
    return f"{device['name']}{threads}, torch {libraries['torch']}, commit {(environment['commit'] or 'unknown')[:8]}"


def efficiency(name: str) -> str:
    """Every attack of one target."""
    if not (record := read(f"speed-{name}")):
        return ""
    rows = [
        [
            f"`{row['label']}`",
            f"{row['images']}",
            f"{row['asked']:.3g}",
            f"{row['executed']:.3g}",
            f"{1000 * row['seconds_per_image']:.3g} ms",
            shown(row["efficiency"]),
            shown(row.get("naive"), 1),
            shown(row.get("by_hand"), 1),
            f"{row['memory']['peak_mb']:,.0f} MB" if row["memory"] else "–",
        ]
        for row in record["figures"]["attacks"]
    ]
    heads = ["attack", "images", "queries asked", "run", "per image", "efficiency", "naive", "by hand", "peak"]
    said = [table(rows, heads), f"{where(record)}."]
    if suite := record["figures"].get("suite"):
        ratio = shown(suite["together_over_apart"])
        said.append(f"All at once take {ratio} of the seconds that the attacks take one by one.")
    return "\n\n".join(said)


def emoji() -> str:
    return efficiency("emoji-realworld")


def mid() -> str:
    return efficiency("mid")


def linear() -> str:
    if not (record := read("linear")):
        return ""
    figures = record["figures"]
    rows = [
        [name, f"{one['queries']:,}", f"{one['us_per_query']:.0f} µs", f"{one['peak_mb']:.0f} MB"]
        for name, one in figures["rows"].items()
    ]
    draws = figures["noise_us"]
    said = f"Keyed noise: {draws['1024']:.0f} µs for 1,024 normals, {draws['4x64x64']:.0f} µs for 4x64x64."
    grown, last = figures["growth_mb"], [*(name for name in figures["rows"] if name.endswith("images"))][-1]
    said += f" Over the second half of {last} the process holds {grown:.0f} MB more than over the first."
    said += f" {where(record)}."
    return table(rows, ["run", "queries", "outside the networks, a query", "peak"]) + f"\n\n{said}"


def workers() -> str:
    if not (record := read("workers")):
        return ""
    figures = record["figures"]
    rows = [["measuring", shown(figures["measuring"])], ["with start-up and scoring", shown(figures["whole"])]]
    return table(rows, ["one worker's seconds over two workers'", "ratio"]) + f"\n\n{where(record)}."


def gpu() -> str:
    if not (record := read("gpu-speed")):
        return ""
    figures = record["figures"]
    best = [
        [name, str(way["batch"]), f"{way['images_per_second']:.1f}", f"{way['utilisation']:.0%}"]
        for name, way in figures["bare"].items()
    ]
    rows = [
        [f"`{row['label']}`", f"{row['asked']:.3g}", f"{row['seconds_per_image']:.3g} s", f"{row['efficiency']:.2f}"]
        for row in figures["attacks"]
    ]
    said = [table(best, ["U-Net alone", "rows", "queries/s", "of the matrix-product ceiling"])]
    said += [table(rows, ["attack", "queries asked", "per image", "efficiency"]), f"{where(record)}."]
    return "\n\n".join(said)


def precision() -> str:
    if not (record := read("gpu-same-numbers")):
        return ""
    halves = [dtype for dtype in record["dtypes"] if dtype != "float32"]
    rows = [
        [f"`{name}`", f"{one['float32']['largest']:.1e}", *(f"{one[half]['auc_change']:+.4f}" for half in halves)]
        for name, one in record["figures"]["attacks"].items()
    ]
    heads = ["attack", "float32: largest difference from the CPU", *(f"{half}: change of AUC" for half in halves)]
    return table(rows, heads) + f"\n\n{where(record)}."


def sizing() -> str:
    """Hours on LAION-mi, from what each attack asks by default."""
    from mia_bench.plugins import Registry

    rows = []
    for name, attack in sorted(Registry.load().attacks.items()):
        queries = attack(attack.Params().resolved("latent")).queries()
        if queries:
            hours = [f"{LAION_MI * queries * seconds / 3600:,.1f}" for seconds in PER_QUERY.values()]
            rows.append([f"`{name}`", f"{queries:,}", *hours])
    rows.sort(key=lambda row: (int(row[1].replace(",", "")), row[0]))
    return table(rows, ["attack", "queries an image", *(f"hours at {said} a query" for said in PER_QUERY)])


if __name__ == "__main__":
    fill(ROOT / "docs" / "performance.md", (sizing, emoji, mid, linear, workers, gpu, precision))
