"""SecMI's error on the embedded targets, by timestep, step ahead and target: why it is weak there.

    python secmi.py RUNS OUT.json [FIGURE.svg]

One inversion of stride 10 gives SecMI's error at every t = 0, 10, ..., 290: with k' = k the step ahead is the chain's
own next step. Beside it stands the size of the noise predicted along the same chain, which SimA reads at t = 0.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from probe import TARGETS, auc_of, terms_of

from mia_bench import Access, Attack, Measured, Meta, hookimpl
from mia_bench.batch import Batch
from mia_bench.diffusion.reduce import power_sum
from mia_bench.engine.provenance import environment
from mia_bench.target import Target

STRIDE = 10
TIMES = tuple(range(0, 300, STRIDE))
STATISTICS = {
    "error": "SecMI, k' = 10: -|e(x_t, t) - e(x_t+10, t+10)|",
    "near": "SecMI, k' = 1",
    "time": "of it, by time alone: -|e(x_t, t) - e(x_t, t+10)|",
    "place": "of it, by place alone: -|e(x_t, t+10) - e(x_t+10, t+10)|",
    "size": "size: -|e(x_t, t)|",
}


class Chain(Attack):
    """Sums of squares along the inversion: of the noise predicted, and of its change over 10 steps and over one."""

    meta = Meta(
        name="secmi-chain", summary="SecMI's error at every timestep", paper="arXiv:2302.01316", access=Access.NOISE
    )

    def queries(self) -> int:
        return 3 * len(TIMES) + 1

    def measure(self, batch: Batch, target: Target) -> dict[str, Any]:
        import torch

        schedule, given = target.schedule, batch.condition
        x: torch.Tensor = batch.x0
        here, found = target.denoiser(x, 0, given), {name: [] for name in STATISTICS}
        for t in TIMES:
            near = target.denoiser(schedule.jump(x, here, t, t + 1), t + 1, given)
            later = target.denoiser(x, t + STRIDE, given)  # nothing moved, only the timestep told
            x = schedule.jump(x, here, t, t + STRIDE)
            ahead = target.denoiser(x, t + STRIDE, given)
            changes = {"error": here - ahead, "near": here - near, "time": here - later, "place": later - ahead}
            for name, value in {**changes, "size": here}.items():
                found[name].append(power_sum(value))
            here = ahead
        return {name: torch.stack(values, dim=1) for name, values in found.items()}

    def score(self, measured: Measured, calibration: Measured | None) -> Any:
        return -measured["error"][:, TIMES.index(100)]


@hookimpl
def mia_bench_attacks() -> list[type[Attack]]:
    return [Chain]


def by_time(target: str, runs: Path) -> dict[str, list[dict[str, Any]]]:
    """Statistic -> for each timestep the AUC with its interval, and the mean over the audit set."""
    terms, member = terms_of(Path(__file__), "secmi-chain", target, runs / f"secmi-{target}")
    return {
        name: [
            {"t": t, **auc_of(-values, member), "mean": float(values.mean())}
            for t, values in zip(TIMES, terms[name].T, strict=True)
        ]
        for name in STATISTICS
    }


def draw(content: dict[str, Any], path: Path) -> None:
    import matplotlib as mpl
    import matplotlib.pyplot as plt

    style = {"svg.hashsalt": "mia-bench", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False}
    mpl.rcParams.update(style)
    figure, axes = plt.subplots(1, len(content["targets"]), figsize=(12, 4.2), sharey=True)
    for panel, (target, found) in zip(axes, content["targets"].items(), strict=True):
        for name, label in STATISTICS.items():
            points = found[name]
            t = [p["t"] for p in points]
            (line,) = panel.plot(t, [p["value"] for p in points], label=label)
            panel.fill_between(t, [p["low"] for p in points], [p["high"] for p in points], alpha=0.15)
            line.set_linewidth(1.4)
        panel.axhline(0.5, color="black", linewidth=0.5)
        panel.axvline(100, color="grey", linewidth=0.5, linestyle=":")
        panel.set(title=target, xlabel="t")
    axes[0].set_ylabel("AUC with 95 % interval")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="lower center", ncols=3, frameon=False, fontsize=8)
    figure.tight_layout(rect=(0, 0.12, 1, 1))
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None, dpi=150)


if __name__ == "__main__":
    runs, out, *figures = (Path(argument) for argument in sys.argv[1:])
    content = {"benchmark": "secmi", "environment": environment("cpu")}
    content["targets"] = {target: by_time(target, runs) for target in TARGETS}
    out.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    for figure in figures:
        draw(content, figure)
