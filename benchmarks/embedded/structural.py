"""What the autoencoder adds to the structural attack on the embedded targets: why it is weak there.

python structural.py RUNS OUT.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from probe import TARGETS, auc_of, terms_of

from mia_bench import Access, Attack, Measured, Meta, hookimpl
from mia_bench.batch import Batch
from mia_bench.diffusion.reduce import power_mean
from mia_bench.diffusion.sampler import walk
from mia_bench.diffusion.ssim import ssim
from mia_bench.engine.provenance import environment
from mia_bench.target import Target

STATISTICS = {
    "attack": "the attack, SSIM(x, D(z_100))",
    "autoencoder": "the autoencoder alone, SSIM(x, D(z_0))",
    "decoded": "without its error, SSIM(D(z_0), D(z_100))",
    "latent": "before decoding, -mean (z_100 - z_0)²",
}


class Parts(Attack):
    """The structural attack, and its parts."""

    meta = Meta(name="structural-parts", summary="structural, in parts", paper="arXiv:2407.13252", access=Access.NOISE)

    def queries(self) -> int:
        return 2

    def measure(self, batch: Batch, target: Target) -> dict[str, Any]:
        def unit(pixels: Any) -> Any:
            return ((pixels + 1) / 2).clamp(0, 1)

        *_, noised = walk(target, batch.x0, [0, 50, 100], batch.condition, batch.null, label="destination")
        image, plain, after = unit(batch.pixels), unit(target.decode(batch.x0)), unit(target.decode(noised))
        return {
            "attack": ssim(image, after),
            "autoencoder": ssim(image, plain),
            "decoded": ssim(plain, after),
            "latent": -power_mean((noised - batch.x0)[:, None])[:, 0],
        }

    def score(self, measured: Measured, calibration: Measured | None) -> Any:
        return measured["attack"]


@hookimpl
def mia_bench_attacks() -> list[type[Attack]]:
    return [Parts]


if __name__ == "__main__":
    runs, out = (Path(argument) for argument in sys.argv[1:])
    content: dict[str, Any] = {"benchmark": "structural", "environment": environment("cpu"), "targets": {}}
    for target in TARGETS:
        terms, member = terms_of(Path(__file__), "structural-parts", target, runs / f"structural-{target}")
        content["targets"][target] = {
            name: auc_of(terms[name], member) | {"mean": float(terms[name].mean())} for name in STATISTICS
        }
    out.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
