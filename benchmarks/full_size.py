"""What LAION-mi's full size costs before and between measuring: `python benchmarks/full_size.py [--out FILE.json]`.

40,270 rows: a list of urls and a list of survivors as `mia-bench fetch` leaves them are made in a temporary folder, all
of them alive; nothing is downloaded. Each step runs in a process of its own that has done it on a few rows before, so
that imports are done. What it then adds is its seconds, and the peak of its resident memory over what it was before:

* listing: `laion-mi` to samples
* splitting: `--calibration .2 --balance`, with perceptual hashes remembered from fetching
* planning: eight attacks and the blind control on all samples, a fifth of them to calibrate on
* resuming: the same in a run folder that is already full of their measurements, up to knowing that nothing is left
* together: listing, splitting, planning and resuming in one process, as `mia-bench run` does

Then the peak while measuring 1,000 and 4,000 images, which must not grow with their number. Five minutes on two
idle cores; needs Linux (`/proc`) and glibc.

This file is also the plugin with the target of these runs: a convolution.
"""

from __future__ import annotations

import ctypes
import gc
import hashlib
import io
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mia_bench import Capability, Dataset, DatasetMeta, Sample, Target, TargetMeta, hookimpl
from mia_bench.engine.hashes import HashCache
from mia_bench.engine.measure import pending
from mia_bench.engine.plan import Plan
from mia_bench.engine.prepare import Prepared, RunOptions, prepare
from mia_bench.engine.run import run_tasks
from mia_bench.engine.splits import divide
from mia_bench.fetch.ledger import Row
from mia_bench.fetch.survivors import freeze
from mia_bench.plugins import Registry
from mia_bench.store import Store

FULL = {"members": 13_396, "nonmembers": 26_874}
FEW = {"members": 60, "nonmembers": 120}  # done before, so that imports are done
ATTACKS = "loss,mc,pia,pian,secmi,pfami,clid,sima,blind"
STEPS = ("listing", "splitting", "planning", "resuming", "together")
IMAGES = (1000, 4000)
MAX_S, MAX_MB = 5.0, 500.0  # of each step but `together`
MAX_GROWTH_MB = 30.0  # of 3,000 more images: one picture or text state kept of each would be 600 MB
BATCH = 64


class Convolution(Target):
    """A convolution that sees the timestep and the caption."""

    meta = TargetMeta(
        name="convolution",
        summary="one convolution",
        kind="latent",
        capabilities=frozenset({Capability.DENOISE, Capability.CAPTION}),
    )

    def weights(self) -> dict[str, str]:
        return {"kernel": "7"}

    def load(self) -> None:
        import torch

        from mia_bench.diffusion.schedule import Schedule

        self.schedule = Schedule.from_betas(np.linspace(1e-4, 0.02, 1000))
        self.image_size, self.sample_shape = 32, (4, 8, 8)
        self.kernel = torch.randn(4, 4, 3, 3, generator=torch.Generator().manual_seed(7)) / 6

    def predict(self, x: Any, t: Any, encoder_hidden_states: Any) -> Any:
        import torch

        bias = encoder_hidden_states[:, :, :4].mean(1) + t[:, None] / 1000
        return torch.tanh(torch.nn.functional.conv2d(x, self.kernel, padding=1) + bias[:, :, None, None])

    def posterior(self, pixels: Any) -> Any:
        import torch

        small = torch.nn.functional.avg_pool2d(pixels, 4)
        mean = torch.cat([small, small[:, :1]], dim=1)
        return torch.stack([mean, torch.full_like(mean, 0.1)], dim=1)

    def tokens(self, texts: Sequence[str]) -> Any:
        import torch

        return torch.tensor([[ord(c) for c in text[:77].ljust(77)] for text in texts])

    def text_states(self, tokens: Any) -> Any:
        import torch

        return torch.sin(tokens[:, :, None] * torch.arange(1.0, 769.0))  # as large as Stable Diffusion 1's


class Pictures(Dataset):
    """So many samples of a few pictures."""

    meta = DatasetMeta(name="pictures", summary="N samples of eight pictures", argument="N")

    def samples(self) -> list[Sample]:
        files = [picture(number) for number in range(8)]
        return [
            Sample(
                id=f"{number:06d}",
                image=lambda data=files[number % 8]: data,  # type: ignore[misc]
                content=hashlib.sha256(f"{number}".encode()).hexdigest(),
                caption=caption(number),
                member=number % 2 == 0,
            )
            for number in range(int(self.argument))
        ]


def picture(seed: int) -> bytes:
    """A JPEG of 256 px."""
    from PIL import Image

    stream = io.BytesIO()
    coarse = np.random.default_rng(seed).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(coarse).resize((256, 256)).save(stream, "JPEG")
    return stream.getvalue()


def caption(number: int) -> str:
    """As long as LAION's are in the mean."""
    source = random.Random(number)
    return " ".join(f"word{source.randrange(9999)}" for _ in range(8))


@hookimpl
def mia_bench_targets() -> list[type[Target]]:
    return [Convolution]


@hookimpl
def mia_bench_datasets() -> list[type[Dataset]]:
    return [Pictures]


@hookimpl
def mia_bench_run_finished(event: Any) -> None:
    """The peak while measuring, for the process that asks."""
    if path := os.environ.get("FULL_SIZE_PEAK"):
        Path(path).write_text(str(status_mb("VmHWM")), encoding="utf-8")


def make_list(place: Path, counts: dict[str, int]) -> None:
    """A copy of LAION-mi's repository, and what fetching all of it would have left in the cache but the images."""
    data = place / "list" / "data"
    data.mkdir(parents=True)
    for kind, count in counts.items():
        urls = [f"https://host{n % 997}.example/{kind}/images/{n:07d}/picture-{n}.jpg" for n in range(count)]
        rows = {"url": urls, "caption": [caption(n) for n in range(count)]}
        pq.write_table(pa.table(rows), data / f"{kind}-00000-of-00001-0123456789abcdef.parquet")
    dataset: Any = registry().dataset("laion-mi")(str(place / "list"))
    rows = [
        Row(id=link.id, kind=link.kind, url=link.url, sha256=hashlib.sha256(link.url.encode()).hexdigest())
        for link in dataset.links
    ]
    freeze(dataset.folder, rows, {row.id: "" for row in rows}, {})
    source = random.Random(0)
    HashCache().add({row.sha256: source.getrandbits(64) for row in rows})


def registry() -> Registry:
    return Registry.load([Path(__file__)])


def options(place: Path, **more: Any) -> RunOptions:
    spec = f"laion-mi:{place / 'list'}"
    return RunOptions(
        dataset=spec, target="convolution", attacks=ATTACKS, calibration=0.2, out=place / "run", threads=1, **more
    )


def fill(place: Path) -> None:
    """Measurements of every planned attack and sample, of the shapes that a real batch has, as a finished run left."""
    with tempfile.TemporaryDirectory() as folder:
        made = registry()
        sample = RunOptions(
            dataset="pictures:24", target="convolution", attacks=ATTACKS, out=Path(folder), threads=1, calibration=0.5
        )
        run_tasks(made, sample)
        few, store = prepare(made, sample).plan, Store(Path(folder))
        shapes = {
            attack.name: {
                name: v.shape[1:] for name, v in store.terms(attack.fingerprint, few.samples.pairs)[1].items()
            }
            for attack in few.attacks
        }
    plan = prepare(registry(), options(place)).plan
    table, source, store = plan.samples, np.random.default_rng(0), Store(place / "run")
    with store.locked():
        for start in range(0, len(table.id), BATCH):
            ids, digests = table.id[start : start + BATCH], table.digest[start : start + BATCH]
            calibrating = table.calibrating[start : start + BATCH]
            measured = {}
            for attack in plan.attacks:
                terms = {n: source.random((len(ids), *shape)) for n, shape in shapes[attack.name].items()}
                for name, values in terms.items():
                    if attack.control:
                        values[calibrating] = np.nan
                        if name == "caption":
                            values[values < 0.95] = 0  # hashed counts are sparse
                measured[attack.fingerprint] = terms
            store.add(ids, digests, measured, shard_record(plan, len(ids)))
        store.compact()


def shard_record(plan: Plan, count: int) -> dict[str, Any]:
    fingerprints = [a.fingerprint for a in plan.attacks]
    ones = dict.fromkeys(fingerprints, 1)
    return {
        "samples": count,
        "asked": ones,
        "backward": ones,
        "own": ones,
        "pictures": ones,
        "seconds": {},
        "networks": {},
    }


def status_mb(key: str) -> float:
    """A line of this process's status in MB."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return int(next(line for line in lines if line.startswith(f"{key}:")).split()[1]) * 1024 / 1e6


def before(step: str, place: Path) -> Any:
    """What a step starts with."""
    made = registry()
    if step == "splitting":
        return made.dataset("laion-mi")(str(place / "list")).samples()
    if step in ("planning", "resuming"):
        ready = prepare(made, options(place))
        # Copies: hashes that a sample has worked out are not to be there.
        return (made, ready) if step == "resuming" else (made, [replace(s) for s in ready.samples.values()])
    return made


def act(step: str, place: Path, given: Any) -> int:
    """One step; the number of samples that it gave."""
    if step == "listing":
        return len(given.dataset("laion-mi")(str(place / "list")).samples())
    if step == "splitting":
        return len(divide(given, 0.2, True, 0, "laion-mi")[0])
    if step == "planning":
        made, samples = given
        made.datasets["given"] = listed(samples)
        asked = RunOptions(dataset="given", target="convolution", attacks=ATTACKS, out=place / "planned")
        return len(prepare(made, asked).plan.samples.id)
    if step == "resuming":
        return resumed(given[1])
    return resumed(prepare(given, options(place)))


def listed(samples: Sequence[Sample]) -> type[Dataset]:
    """A dataset of these samples."""
    return type(
        "Given", (Dataset,), {"meta": DatasetMeta(name="given", summary="given"), "samples": lambda self: samples}
    )


def resumed(prepared: Prepared) -> int:
    """As a run goes on, up to knowing that nothing is left to measure."""
    with prepared.store.locked():
        prepared.store.set_aside_damaged()
        prepared.store.write_json("run.json", prepared.plan.model_dump(mode="json"))
        if pending(prepared.plan, prepared.samples, prepared.store):
            raise RuntimeError("the run folder is not full")
    return len(prepared.plan.samples.id)


def measure_step(step: str, place: Path) -> dict[str, Any]:
    """What a step adds to a process that has done it before on a few rows."""
    act(step, place / "few", before(step, place / "few"))
    given = before(step, place / "full")
    idle()
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # the peak counts from here
    held, began = status_mb("VmRSS"), time.perf_counter()
    samples = act(step, place / "full", given)
    seconds = time.perf_counter() - began
    return {"samples": samples, "seconds": seconds, "mb": status_mb("VmHWM") - held, "idle_mb": held}


def idle() -> None:
    """Give back to the system what is not in use, so that what a step takes is seen."""
    gc.collect()
    pa.default_memory_pool().release_unused()
    with suppress(OSError, AttributeError):  # of glibc
        ctypes.CDLL(None).malloc_trim(0)


def measure_images(count: int, place: Path) -> dict[str, Any]:
    """The peak of a process that measures so many images, up to the last of them."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["FULL_SIZE_PEAK"] = str(Path(folder) / "peak")
        run_tasks(
            registry(),
            RunOptions(
                dataset=f"pictures:{count}",
                target="convolution",
                attacks=ATTACKS,
                out=Path(folder) / "run",
                threads=1,
                batch=32,
            ),
        )
        return {"images": count, "peak_mb": float((Path(folder) / "peak").read_text(encoding="utf-8"))}


# What is freed goes back to the system at once, so that peaks are of what is held and not of how the heap is cut up.
EXACT = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "65536"}


def alone(place: Path, *arguments: str) -> dict[str, Any]:
    """A step in a process of its own."""
    command = [sys.executable, __file__, "--place", str(place), *arguments]
    own = {"MIA_BENCH_CACHE": str(place / "cache")} | (EXACT if arguments[-1].isdigit() else {})
    environment = {**os.environ, **own}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


WORKERS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "make": lambda place: _made(place),
    **{step: lambda place, step=step: measure_step(step, place) for step in STEPS},  # type: ignore[misc]
    **{str(n): lambda place, n=n: measure_images(n, place) for n in IMAGES},  # type: ignore[misc]
}


def _made(place: Path) -> dict[str, Any]:
    for name, counts in (("few", FEW), ("full", FULL)):
        make_list(place / name, counts)
        fill(place / name)
    files = list((place / "full" / "run" / "measurements").iterdir())
    return {"store_mb": sum(f.stat().st_size for f in files) / 1e6}


@click.command()
@click.option("--out", type=click.Path(path_type=Path), help="Write the record here as JSON.")
@click.option("--place", type=click.Path(path_type=Path), hidden=True)
@click.option("--step", type=click.Choice(list(WORKERS)), hidden=True)
def main(out: Path | None, place: Path | None, step: str | None) -> int:
    if place and step:
        print(json.dumps(WORKERS[step](place)))
        return 0
    from mia_bench.engine.provenance import environment
    from mia_bench.report.text import table

    where = environment("cpu")  # before anything is written
    with tempfile.TemporaryDirectory() as folder:
        made = alone(Path(folder), "--step", "make")
        steps = {name: alone(Path(folder), "--step", name) for name in STEPS}
        images = [alone(Path(folder), "--step", str(count)) for count in IMAGES]
    over = [n for n, s in steps.items() if n != "together" and (s["seconds"] > MAX_S or s["mb"] > MAX_MB)]
    growth = images[-1]["peak_mb"] - images[0]["peak_mb"]
    rows = [[n, f"{s['samples']:,}", f"{s['seconds']:.2f}", f"{s['mb']:.0f}"] for n, s in steps.items()]
    print(table(rows, ["step", "samples", "seconds", "MB over idle"], right=(1, 2, 3)))
    print(
        f"\n{made['store_mb']:.0f} MB of measurements; limits {MAX_S:g} s, {MAX_MB:g} MB: {', '.join(over) or 'kept'}"
    )
    print(", ".join(f"{one['images']:,} images: peak {one['peak_mb']:.0f} MB" for one in images), end="")
    print(f"; growth {growth:.0f} MB")
    if out:
        limits = {"seconds": MAX_S, "mb": MAX_MB, "growth_mb": MAX_GROWTH_MB}
        record = {"benchmark": "full_size", "rows": sum(FULL.values()), "attacks": ATTACKS, "limits": limits}
        record |= {"steps": steps, "measuring": images, **made, "environment": where}
        out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return 1 if over or growth > MAX_GROWTH_MB else 0


if __name__ == "__main__":
    sys.exit(main(standalone_mode=False))
