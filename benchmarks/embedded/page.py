"""Fill the tables of docs/embedded.md from recorded results: `python page.py [--check]`."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1]))

from pages import RESULTS, ROOT, fill, table


def read(name: str) -> Any:
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def interval(found: Mapping[str, float]) -> str:
    value = found["value"] if "value" in found else found["auc"]
    return f"{value:.3f} [{found['low']:.3f}, {found['high']:.3f}]"


def blind() -> str:
    record = read("blind")
    used = record["draws"][-1]
    rows = [[name, f"{auc:.3f}", f"{(auc - 0.5) / used['null_error']:+.1f}"] for name, auc in used["auc"].items()]
    distance = used["distance"]
    said = [
        f"{record['concepts']:,} base emoji, {record['distinct']:,} left by the filter; draws: {len(record['draws'])}, "
        f"the last is used. Null standard error of an AUC at 400 + 400: {used['null_error']:.4f}.",
        table(rows, ["features, classifier (5-fold, 5 times)", "AUC", "null standard errors"]),
        "Mean squared distance to the nearest (other) member, quantiles "
        + ", ".join(f"{level:.0%}" for level in distance["quantiles"])
        + f": members {distance['members']}, non-members {distance['nonmembers']}; "
        f"Kolmogorov-Smirnov p = {distance['p_value']:.2f}.",
    ]
    return "\n\n".join(said)


def mirror() -> str:
    rows = [
        [
            row["label"],
            f"{row['auc']:.3f}",
            f"{row['auc_mirror']:.3f}",
            f"{row['deviation']:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}]",
            f"{row['holm']:.3f}",
            "passes" if row["passes"] else "deviates",
        ]
        for row in read("mirror")["attacks"]
    ]
    return table(rows, ["attack", "AUC", "mirror's AUC", "deviation [95 %]", "p (Holm)", ""])


def memorised() -> str:
    found = read("memorised")["targets"]
    names = list(found)
    rows = []
    attacks = {row["attack"]: "holm" in row for rows in found.values() for row in rows}
    for attack in sorted(attacks, key=lambda name: (not attacks[name], name)):
        of = {name: next(row for row in found[name] if row["attack"] == attack) for name in names}
        p = {name: f", p = {of[name]['holm']:.2g}" if attacks[attack] else " (control)" for name in names}
        rows.append([attack, *(interval(of[name]) + p[name] for name in names)])
    return table(rows, ["attack", *(f"{name}: AUC, p (Holm)" for name in names)])


def secmi() -> str:
    record = read("secmi")["targets"]
    labels = {
        "error": "SecMI, k' = 10",
        "near": "SecMI, k' = 1",
        "time": "by time alone",
        "place": "by place alone",
        "size": "size of e(x_t, t)",
    }
    times = [0, 50, 90, 100, 140, 200, 290]
    rows = []
    for target, found in record.items():
        for name, label in labels.items():
            at = {point["t"]: point["value"] for point in found[name]}
            rows.append([target, label, *(f"{at[t]:.2f}" for t in times)])
    return table(rows, ["target", "-sum of squares of", *(f"t = {t}" for t in times)])


def structural() -> str:
    labels = {
        "attack": "SSIM(x, D(z_100)), the attack",
        "autoencoder": "SSIM(x, D(z_0))",
        "decoded": "SSIM(D(z_0), D(z_100))",
        "latent": "-mean (z_100 - z_0)²",
    }
    found = read("structural")["targets"]
    rows = [[label, *(interval(found[target][name]) for target in found)] for name, label in labels.items()]
    return table(rows, ["", *found])


def iip() -> str:
    levels = [20, 15, 10, 5, 1]
    rows = []
    for target, found in read("drawn")["targets"].items():
        for task in ("memorised", "membership"):
            of = found["iip"][task]
            steps = [f"{of['levels'][len(of['levels']) - k]:.2f}" for k in levels]
            rows.append([target, task, interval(of["d"]), interval(of["m"]), *steps])
    return table(rows, ["target", "task", "d", "m", *(f"m_{k}" for k in levels)])


def drawn() -> str:
    rows = []
    for target, found in read("drawn")["targets"].items():
        for group, loss in found["iip"]["null loss"].items():
            rows.append([target, group, f"{loss:.4f}", f"{found['wu-iii'][group]:.2f}"])
    return table(rows, ["target", "images", "median loss without a prompt", "correlation of fits to the caption"])


def trajectory() -> str:
    return "\n\n".join(_passes(f"emoji-{name}", by_passes) for name, by_passes in read("trajectory")["passes"].items())


def pilot() -> str:
    return _passes("pilot", read("pilot")["passes"]["realworld"])


def _passes(name: str, by_passes: Mapping[str, Any]) -> str:
    passes = sorted(by_passes, key=int)
    labels = sorted({label for found in by_passes.values() for label in found if not label.startswith("blind")})
    rows = [[p, *(f"{by_passes[p][label]['auc']['value']:.3f}" for label in labels)] for p in passes]
    return table(rows, [f"{name}: passes", *labels])


if __name__ == "__main__":
    fill(ROOT / "docs" / "embedded.md", (blind, mirror, memorised, secmi, structural, iip, drawn, trajectory, pilot))
