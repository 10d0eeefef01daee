"""What the harness costs beside the networks, and how it grows: `python benchmarks/speed/linear.py [--out FILE.json]`.

A target whose networks do next to nothing, on 4x16x16 latents, is run on 100, 1,000 and 10,000 images, each time in a
process of its own on one thread:

* overhead: seconds outside the networks' own code, for each query that was asked; from the first batch to the last,
  images, noise and the store included. Beside it the same without loading images, and in processor seconds, which do
  not count waiting for the disk.
* peak: of the process's resident memory; and by how much it grows from the first half of the batches to the second.

Then the overhead of each attack alone on 1,000 images, and the cost of keyed noise. Exits with 1 if the overhead of the
six attacks is above 50 microseconds at 64 rows, or the figures grow with the number of images.

This file is also the plugin with the target and the images of these runs.
"""

from __future__ import annotations

import hashlib
import io
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np

from mia_bench import Capability, Dataset, DatasetMeta, Sample, Target, TargetMeta, hookimpl

COUNTS = (100, 1000, 10_000)
EACH = 1000
ATTACKS = ("loss", "mc", "pia", "secmi", "pfami", "clid")
MAX_US = 50.0
MAX_GROWTH = 1.25  # of a query's overhead, from the second count to the last
MAX_GROWTH_MB = 10.0  # of memory while the last count is measured, from half of it on
SHAPE = (4, 16, 16)


class Nothing(Target):
    """Networks that do next to nothing, and count how long they take for it."""

    meta = TargetMeta(
        name="nothing",
        summary="networks that do next to nothing",
        kind="latent",
        capabilities=frozenset({Capability.DENOISE, Capability.CAPTION}),
    )
    inside = 0.0

    def weights(self) -> dict[str, str]:
        return {"none": "0"}

    def load(self) -> None:
        from mia_bench.diffusion.schedule import Schedule

        self.schedule = Schedule.from_betas(np.linspace(1e-4, 0.02, 1000))
        self.image_size, self.sample_shape = 32, SHAPE

    def predict(self, x: Any, t: Any, encoder_hidden_states: Any) -> Any:
        return timed(lambda: x + encoder_hidden_states[:, 0, 0, None, None, None])

    def posterior(self, pixels: Any) -> Any:
        import torch

        def moments() -> Any:
            small = torch.nn.functional.avg_pool2d(pixels, 2)
            mean = torch.cat([small, small[:, :1]], dim=1)
            return torch.stack([mean, mean], dim=1)

        return timed(moments)

    def tokens(self, texts: Sequence[str]) -> Any:
        import torch

        return torch.tensor([[len(text)] for text in texts])

    def text_states(self, tokens: Any) -> Any:
        return timed(lambda: tokens[:, :, None].expand(-1, 8, 64) / 100.0)


def timed(network: Callable[[], Any]) -> Any:
    began = time.perf_counter()
    found = network()
    Nothing.inside += time.perf_counter() - began
    return found


class Pictures(Dataset):
    """So many samples of eight pictures."""

    meta = DatasetMeta(name="pictures", summary="N samples of eight pictures", argument="N")

    def samples(self) -> list[Sample]:
        files = [picture(seed) for seed in range(8)]
        return [
            Sample(
                id=f"{number:06d}",
                image=lambda data=files[number % 8]: data,  # type: ignore[misc]
                content=hashlib.sha256(f"{number}".encode()).hexdigest(),
                caption=f"picture {number % 997} of eight with a few words more",
                member=number % 2 == 0,
            )
            for number in range(int(self.argument))
        ]


def picture(seed: int) -> bytes:
    """A PNG of 32 px."""
    from PIL import Image

    stream = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


@hookimpl
def mia_bench_targets() -> list[type[Target]]:
    return [Nothing]


@hookimpl
def mia_bench_datasets() -> list[type[Dataset]]:
    return [Pictures]


class Resident:
    """Listens to a run: memory after each batch."""

    def __init__(self) -> None:
        self.mb: list[float] = []

    @hookimpl
    def mia_bench_run_started(self, event: Any) -> None:
        self.mb.clear()

    @hookimpl
    def mia_bench_batch_measured(self, event: Any) -> None:
        self.mb.append(_status("VmRSS"))

    def grown(self) -> float:
        """MB that the second half of the batches held more than the first."""
        half = len(self.mb) // 2
        return max(self.mb[half:]) - max(self.mb[:half]) if half else 0.0


def _status(name: str) -> float:
    """A figure of this process's memory, MB."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return int(next(line for line in lines if line.startswith(f"{name}:")).split()[1]) * 1024 / 1e6


def measured(count: int, attacks: str) -> dict[str, float]:
    """One run in this process."""
    from once import only, run_once

    from mia_bench.engine.prepare import RunOptions, prepare
    from mia_bench.plugins import Registry

    registry = Registry.load([Path(__file__)])
    stub, resident = registry.target("nothing"), Resident()
    registry.manager.register(resident)

    def run(images: int) -> tuple[Any, float]:
        options = RunOptions(attacks=attacks, dataset=f"pictures:{images}", target="nothing", threads=1, device="cpu")
        ready = only(prepare(registry, options))
        began = stub.inside  # type: ignore[attr-defined]
        return run_once(registry, ready, options), stub.inside - began  # type: ignore[attr-defined]

    run(64)  # imports, and what is made once
    once, inside = run(count)
    outside = once.seconds - inside
    return {
        "images": once.images,
        "queries": once.asked,
        "seconds": once.seconds,
        "networks_s": inside,
        "load_s": once.spent.get("load", 0.0),
        "us_per_query": 1e6 * outside / once.asked,
        "processor_us_per_query": 1e6 * (once.processor - inside) / once.asked,
        "us_per_query_without_loading": 1e6 * (outside - once.spent.get("load", 0.0)) / once.asked,
        "peak_mb": _status("VmHWM"),
        "grown_mb": resident.grown(),
    }


def apart(count: int, attacks: str) -> dict[str, float]:
    """The same in a process of its own."""
    asked = [sys.executable, __file__, "--count", str(count), "--attacks", attacks]
    done = subprocess.run(asked, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def noise(shape: tuple[int, ...], draws: int = 300) -> float:
    """Microseconds to draw one sample's keyed noise."""
    from mia_bench.diffusion.noise import KeyedNoise

    source, times = KeyedNoise(0), []
    for number in range(draws):
        began = time.perf_counter()
        source.draw(f"sample{number}", "eps", 450, 0, shape)
        times.append(time.perf_counter() - began)
    return 1e6 * statistics.median(times)


def best(found: Sequence[dict[str, float]]) -> dict[str, float]:
    """Of several runs of one thing the one that was disturbed least."""
    return min(found, key=lambda one: one["us_per_query"])


@click.command()
@click.option("--repeats", default=3, show_default=True, help="Runs of each; the least disturbed one counts.")
@click.option("--counts", default=",".join(map(str, COUNTS)), show_default=True, help="Numbers of images.")
@click.option("--each", default=EACH, show_default=True, help="Images for each attack alone; 0 leaves these out.")
@click.option("--out", type=click.Path(path_type=Path), help="Write the record here as JSON; resumed if it exists.")
@click.option("--count", type=int, hidden=True)
@click.option("--attacks", hidden=True)
def main(repeats: int, counts: str, each: int, out: Path | None, count: int | None, attacks: str | None) -> int:
    if count and attacks:
        print(json.dumps(measured(count, attacks)))
        return 0
    from timing import Record

    from mia_bench.engine.provenance import environment
    from mia_bench.report.text import table

    numbers, together = [int(n) for n in counts.split(",")], ",".join(ATTACKS)
    about = {"benchmark": "speed/linear", "shape": SHAPE, "rows": 64, "environment": environment("cpu")}
    record = Record(out, about)
    steps = {f"{number} images": (number, together) for number in numbers}
    steps |= {name: (each, name) for name in ATTACKS if each}
    found: dict[str, list[dict[str, float]]] = {name: [] for name in steps}
    for repeat in range(repeats):  # in turn, so that a disturbance does not hit one of them alone
        for name, step in steps.items():
            found[name].append(record.once(f"{repeat}: {name}", lambda step=step: apart(*step)))  # type: ignore[misc]
    rows = {name: best(one) for name, one in found.items()}
    draws = {"1024": noise((1024,)), "4x64x64": noise((4, 64, 64))}
    first, last = (rows[f"{n} images"] for n in (numbers[min(1, len(numbers) - 1)], numbers[-1]))
    verdict = {
        "us_per_query": last["us_per_query"],
        "growth": last["us_per_query"] / first["us_per_query"],
        "growth_mb": statistics.median(one["grown_mb"] for one in found[f"{numbers[-1]} images"]),
    }
    kept = (
        verdict["us_per_query"] <= MAX_US and verdict["growth"] <= MAX_GROWTH and verdict["growth_mb"] <= MAX_GROWTH_MB
    )
    limits = {"us_per_query": MAX_US, "growth": MAX_GROWTH, "growth_mb": MAX_GROWTH_MB}
    record.write(figures={"rows": rows, "noise_us": draws, "limits": limits, **verdict, "kept": kept})
    lines = [
        [
            name,
            f"{one['images']:,}",
            f"{one['queries']:,}",
            f"{one['us_per_query']:.1f}",
            f"{one['us_per_query_without_loading']:.1f}",
            f"{one['processor_us_per_query']:.1f}",
            f"{one['peak_mb']:.0f}",
        ]
        for name, one in rows.items()
    ]
    heads = ["run", "images", "queries", "us a query", "without loading", "of processor", "peak MB"]
    print(table(lines, heads, right=(1, 2, 3, 4, 5, 6)))
    print(f"\nkeyed noise: {draws['1024']:.1f} us for 1,024 normals, {draws['4x64x64']:.1f} us for 4x64x64")
    print(f"{verdict['us_per_query']:.1f} us a query, grows {verdict['growth']:.2f}-fold", end="")
    print(f" and holds {verdict['growth_mb']:.0f} MB more in the second half:", end="")
    print(f" {'within' if kept else 'beyond'} the limits {limits}")
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main(standalone_mode=False))
