"""Speed against the device's limit: `python benchmarks/gpu/speed.py --size full --device cuda --out FILE.json`.

A pipeline in the shape of Stable Diffusion 1.5 with random weights (timing needs no training): the real U-Net
configuration of 860 M parameters on 64x64x4 latents with text states of 77x768.

1. ceiling: the largest matrix product per second that the device gives, by dtype
2. bare: the U-Net alone, images/s over row counts, dtypes, `channels_last` and `torch.compile`; its model FLOPs per
   second in parts of the ceiling; VAE and text encoder alone
3. attacks: each through the harness, efficiency (bare networks for the executed work at their best row count, divided
   by the run's seconds), seconds per image, peak memory, beside what papers print

Every step is written as it is done, and the same command goes on. `--size tiny --device cpu` tries all of it.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import torch

sys.path.append(str(Path(__file__).parents[1] / "speed"))
import mid
from once import Counting, Work, only, run_once
from timing import Record, shown, spread

from mia_bench.engine.prepare import Prepared, RunOptions, prepare
from mia_bench.engine.provenance import environment
from mia_bench.errors import MiaBenchError
from mia_bench.plugins import Registry
from mia_bench.report.text import table

ATTACKS = "loss,mc,pia,pian,secmi,pfami,clid,sima,structural,rediffuse,gsa,drc[emoji-lpips],wu-iip"
SIZES: dict[str, dict[str, Any]] = {
    "full": {"rows": (1, 4, 8, 16, 32, 64), "limit": 4, "attacks": ATTACKS, "matrix": 8192, "seconds": 2.0},
    "tiny": {"rows": (1, 4), "limit": 1, "attacks": "loss,pia", "matrix": 128, "seconds": 0.01},
}
# Seconds per image as published: CLiD's paper (80 min for 5,000 images of 15 queries, A6000), CopyMark's records.
PUBLISHED = {"clid": 0.96, "CopyMark, 50 queries": 2.9, "CopyMark, 110 queries": 8.0}


def make(folder: Path, size: str) -> int:
    """Save the pipeline; returns the U-Net's parameters."""
    if size == "tiny":
        return mid.make(folder, "tiny")
    from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    torch.manual_seed(0)
    tokenizer = CLIPTokenizer.from_pretrained(mid.TOKENIZER, model_max_length=77)
    unet = UNet2DConditionModel(sample_size=64, cross_attention_dim=768)  # diffusers' defaults are SD 1's otherwise
    vae = AutoencoderKL(
        block_out_channels=(128, 256, 512, 512),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        latent_channels=4,
        sample_size=512,
    )
    text = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=49408,
            hidden_size=768,
            intermediate_size=3072,
            num_hidden_layers=12,
            num_attention_heads=12,
            max_position_embeddings=77,
        )
    )
    scheduler = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        steps_offset=1,
        clip_sample=False,
        set_alpha_to_one=False,
    )
    StableDiffusionPipeline(
        vae=vae,
        text_encoder=text,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder, safe_serialization=True)
    return sum(weight.numel() for weight in unet.parameters())


def rate(call: Callable[[], object], device: str, seconds: float) -> float:
    """Calls per second, over about so long, after a warm-up."""

    def wait() -> None:
        if device.startswith("cuda"):
            torch.cuda.synchronize()

    call(), call(), wait()
    began, calls = time.perf_counter(), 0
    while time.perf_counter() - began < seconds or not calls:
        call()
        calls += 1
        if calls % 4 == 0:
            wait()
    wait()
    return calls / (time.perf_counter() - began)


def ceiling(device: str, dtype: str, side: int, seconds: float) -> float:
    """FLOPs per second of a matrix product."""
    torch.backends.cuda.matmul.allow_tf32 = False
    a = torch.randn(side, side, device=device, dtype=getattr(torch, dtype))
    return 2 * side**3 * rate(lambda: a @ a, device, seconds)


def flops(call: Callable[[], object]) -> int:
    """Of one call."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops()


def unet_call(target: Any, rows: int, dtype: str, layout: str, compiled: bool) -> Callable[[], object]:
    """The U-Net alone on so many rows."""
    unet = target.network().to(getattr(torch, dtype))
    unet = unet.to(memory_format=torch.channels_last if layout == "channels_last" else torch.contiguous_format)
    run = torch.compile(unet) if compiled else unet
    length, width = target.tokens([""]).shape[1], target.text_encoder.config.hidden_size
    x = torch.randn(rows, *target.sample_shape, device=target.device, dtype=getattr(torch, dtype))
    if layout == "channels_last":
        x = x.contiguous(memory_format=torch.channels_last)
    t = torch.full((rows,), 450, device=target.device)
    states = torch.randn(rows, length, width, device=target.device, dtype=x.dtype)

    def call() -> object:
        with torch.inference_mode():
            return run(x, t, encoder_hidden_states=states, return_dict=False)[0]

    return call


def peak(device: str) -> float:
    """Most memory held since the last call, in MB; 0 on a CPU."""
    if not device.startswith("cuda"):
        return 0.0
    found = torch.cuda.max_memory_allocated() / 1e6
    torch.cuda.reset_peak_memory_stats()
    return found


def bare_unet(record: Record, target: Any, dtypes: list[str], given: dict[str, Any], compiling: bool) -> dict[str, Any]:
    """The best way of each dtype."""
    device, best = target.device, {}
    counted = record.once("flops", lambda: flops(unet_call(target, 1, "float32", "contiguous", False)))
    for dtype in dtypes:
        limit = record.once(f"ceiling {dtype}", lambda d=dtype: ceiling(device, d, given["matrix"], given["seconds"]))
        ways = [(layout, False) for layout in ("contiguous", "channels_last")]
        ways += [("channels_last", True)] if compiling else []
        for layout, compiled in ways:
            for rows in given["rows"]:
                name = f"unet {dtype} {layout}{' compiled' if compiled else ''}, {rows} rows"

                def measure(
                    rows: int = rows, dtype: str = dtype, layout: str = layout, compiled: bool = compiled
                ) -> Any:
                    peak(device)
                    try:
                        per_second = rows * rate(
                            unet_call(target, rows, dtype, layout, compiled), device, given["seconds"]
                        )
                    except torch.OutOfMemoryError:
                        torch.cuda.empty_cache()
                        return None
                    return {"images_per_second": per_second, "peak_mb": peak(device)}

                found = record.once(name, measure)
                if (
                    found
                    and found["images_per_second"] > best.get(dtype, {"images_per_second": 0})["images_per_second"]
                ):
                    share = found["images_per_second"] * counted / limit
                    way = {"batch": rows, "layout": layout, "compiled": compiled, "utilisation": share}
                    best[dtype] = {**found, **way}
    target.network().to(torch.float32)
    return best


def bare_seconds(target: Any, work: Work, rows: Sequence[int], seconds: float) -> tuple[float, int]:
    """Seconds a row of one network of the harness, gradients included, and the row count that gives them."""
    owner = target if work.owner == "target" else target.encoders[work.owner]
    network, device, best = getattr(owner, work.method), target.device, (float("inf"), 1)
    for batch in (work.batch,) if work.batch else rows:

        def spread_out(value: Any, batch: int = batch) -> Any:
            if not isinstance(value, torch.Tensor):
                return list(value) * batch
            return value.expand(batch, *value.shape[1:]).clone()

        inputs, states = [spread_out(x) for x in work.row[0]], {n: spread_out(x) for n, x in work.row[1].items()}

        def call(inputs: Any = inputs, states: Any = states) -> None:
            if not work.gradient:
                with torch.inference_mode():
                    network(*inputs, **states)
                return
            with torch.enable_grad(), target.differentiable() as weights:
                loss = network(*inputs, **states).square().sum()
                torch.autograd.grad(loss, list(weights.values()), allow_unused=True)

        try:
            best = min(best, (1 / (batch * rate(call, device, seconds)), batch))
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
    return best


def attack_rounds(
    registry: Registry, ready: Prepared, options: RunOptions, given: dict[str, Any], pairs: int, record: Record
) -> list[dict[str, Any]]:
    """One attack through the harness, beside the bare networks for the same work, in turn."""
    counting, device = Counting(ready), str(options.device)
    with counting():
        first = run_once(registry, ready, options, reopen=False)
    works, ways, found = counting.found(first), [], []
    for work in works:
        shapes = [list(x.shape[1:]) for x in work.row[0] if isinstance(x, torch.Tensor)]
        name = f"best rows: {work.network}.{work.method} {work.gradient} {work.batch or ''} {shapes}"
        least = record.once(name, lambda w=work: bare_seconds(ready.target, w, given["rows"], given["seconds"] / 8))
        ways.append([least[1]])
    for _ in range(pairs):
        alone = [
            bare_seconds(ready.target, w, way, given["seconds"] / 4)[0] for w, way in zip(works, ways, strict=True)
        ]
        peak(device)
        run = run_once(registry, ready, options, reopen=False)
        bare = sum(w.rows * seconds for w, seconds in zip(works, alone, strict=True))
        found.append({"bare_s": bare, "run": asdict(run), "peak_mb": peak(device)})
    return found


def attempt(registry: Registry, ready: Prepared, *given: Any) -> dict[str, Any]:
    """The rounds of an attack, or why there are none: what cannot run here must not cost the others their time."""
    try:
        return {"rounds": attack_rounds(registry, ready, *given)}
    except (RuntimeError, MiaBenchError) as error:
        torch.cuda.empty_cache()
        return {"failed": f"{type(error).__name__}: {str(error).splitlines()[0]}"}


def row_of(label: str, rounds: list[dict[str, Any]]) -> dict[str, Any]:
    run = rounds[0]["run"]
    ratios = spread([r["bare_s"] / r["run"]["seconds"] for r in rounds])
    return {
        "label": label,
        "images": run["images"],
        "asked": run["asked"] / run["images"],
        "executed": run["rows"]["denoiser"] / run["images"],
        "seconds_per_image": spread([r["run"]["seconds"] / r["run"]["images"] for r in rounds])["median"],
        "efficiency": ratios["median"],
        "efficiency_of_pairs": ratios,
        "peak_mb": max(r["peak_mb"] for r in rounds),
        "published_s": PUBLISHED.get(label),
    }


@click.command()
@click.option("--size", type=click.Choice(list(SIZES)), default="full", show_default=True)
@click.option("--device", default="cuda", show_default=True)
@click.option("--dtypes", default="float32,bfloat16,float16", show_default=True)
@click.option("--dtype", default="bfloat16", show_default=True, help="What the attacks are run in.")
@click.option("--pairs", default=3, show_default=True)
@click.option("--compile/--no-compile", "compiling", default=True, help="Whether to try `torch.compile`.")
@click.option("--out", type=click.Path(path_type=Path), help="Write the record here as JSON; resumed if it exists.")
def main(size: str, device: str, dtypes: str, dtype: str, pairs: int, compiling: bool, out: Path | None) -> None:
    given, registry = SIZES[size], Registry.load()
    about = {"benchmark": "gpu/speed", "size": size, "dtypes": dtypes, "dtype": dtype}
    record = Record(out, {**about, "environment": environment(device)})
    with tempfile.TemporaryDirectory() as folder:
        record.write(parameters=make(Path(folder), size), published_s_per_image=PUBLISHED)
        options = RunOptions(
            attacks=given["attacks"],
            target=folder,
            dataset="fluent-emoji",
            limit=given["limit"],
            device=device,
            dtype=dtype,
            full=True,
        )
        alone = prepare(registry, options).target
        alone.open(device=device)
        best = bare_unet(record, alone, dtypes.split(","), given, compiling)
        del alone
        everything = only(prepare(registry, options))
        labels = [a.label for a in everything.plan.attacks]
        rows: list[dict[str, Any]] = []
        for label in [*labels, "all"]:
            ready = only(everything, labels if label == "all" else [label])
            rounds = record.once(
                f"attack {label}", lambda ready=ready: attempt(registry, ready, options, given, pairs, record)
            )
            if "failed" in rounds:
                print(f"{label}: {rounds['failed']}", flush=True)
                continue
            rows.append(row_of(label, rounds["rounds"]))
            record.write(figures={"bare": best, "attacks": rows})
            print(f"{label}: {rows[-1]['seconds_per_image']:.3g} s an image", flush=True)
    heads = ["unet", "rows", "layout", "compiled", "images/s", "of the ceiling"]
    ways = [
        [n, w["batch"], w["layout"], w["compiled"], f"{w['images_per_second']:.1f}", f"{w['utilisation']:.0%}"]
        for n, w in best.items()
    ]
    print(table(ways, heads))
    cells = [
        [
            r["label"],
            f"{r['asked']:.3g}",
            f"{r['seconds_per_image']:.3g}",
            f"{r['published_s'] or '–'}",
            shown(r["efficiency_of_pairs"], 3),
            f"{r['peak_mb']:.0f}",
        ]
        for r in rows
    ]
    print(table(cells, ["attack", "asked", "s an image", "published", "efficiency", "peak MB"]))


if __name__ == "__main__":
    main()
