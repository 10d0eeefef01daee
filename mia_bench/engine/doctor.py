"""What this machine has, and which attacks can be run on a target."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from mia_bench.attack import Attack, Capability, Control
from mia_bench.cache import cache_folder
from mia_bench.dataset import Dataset, Sample
from mia_bench.engine.blame import blaming
from mia_bench.engine.encoders import Resolve, resolver
from mia_bench.engine.estimate import estimate
from mia_bench.engine.named import open_dataset, open_reference, open_target
from mia_bench.engine.plan import calibration_gap, obstacle
from mia_bench.engine.prepare import open_device
from mia_bench.engine.provenance import environment
from mia_bench.engine.select import label_of
from mia_bench.engine.worker import default_batch
from mia_bench.errors import MiaBenchError, UnavailableError
from mia_bench.plugins import Registry
from mia_bench.target import Target, TargetOptions

STAND_IN = (Sample("a", Path(), "", caption="a caption", member=True, split="calibration"),)  # that of any good dataset
EXTRAS = {"peft": "lora", "accelerate": "offload", "lpips": "encoders"}  # package -> the extra that brings it


def examine(
    registry: Registry,
    target: str | None = None,
    dataset: str | None = None,
    device: str | None = None,
    dtype: str = "float32",
    options: TargetOptions | None = None,
    reference: str | None = None,
) -> tuple[dict[str, Any], MiaBenchError | None]:
    """Look at the machine, and load a target if one is named.

    Args:
        registry: All plugins.
        target: As `run --target` takes it.
        dataset: As `run --dataset` takes it; without one, samples are taken to have captions and a calibration set.
        device: torch device.
        dtype: Precision of the networks.
        options: How the target is loaded.
        reference: As `run --reference` takes it.

    Returns:
        `machine`, `broken plugins` (name -> error) and, as far as they are named and can be had, `dataset`, `target`
        and `attacks` (name -> `runs`, `queries`, `presets` that run where it does not, and `why` it does not); and what
        kept the rest from being looked at.

    Raises:
        MiaBenchError: There is no such device.
    """
    where = open_device(device)
    found: dict[str, Any] = {
        "machine": environment(where) | _resources(where),
        "broken plugins": {plugin.name: plugin.error for plugin in registry.broken},
    }
    try:
        samples: Sequence[Sample] | None = None
        if dataset:
            with blaming("dataset", dataset, registry.datasets.get(dataset.partition(":")[0], Dataset)):
                samples = open_dataset(registry, dataset).samples()
            found["dataset"] = {"name": dataset} | _counts(samples)
        if target:
            with blaming("target", target, registry.targets.get(target.partition(":")[0], Target)):
                opened = open_target(registry, target, options)
                if reference:
                    open_reference(registry, opened, reference)
                found["target"] = {"name": target} | _target(opened, where, dtype)
            find = resolver(registry, opened.meta.kind)
            attacks = {n: c for n, c in sorted(registry.attacks.items()) if not issubclass(c, Control)}
            found["attacks"] = {name: _verdict(registry, cls, opened, samples, find) for name, cls in attacks.items()}
    except MiaBenchError as error:
        return found, error
    return found, None


def _target(target: Target, device: str, dtype: str) -> dict[str, Any]:
    import torch

    cuda, threads = device.startswith("cuda"), len(os.sched_getaffinity(0))
    identity, facts = target.fingerprint, target.facts()
    if cuda:
        torch.cuda.reset_peak_memory_stats(device)
    target.open(device, dtype, threads=threads)
    weights = torch.cuda.memory_allocated(device) if cuda else None
    timed = estimate([], target)
    return {
        "family": target.meta.name,
        "kind": target.meta.kind,
        "capabilities": sorted(target.capabilities),
        "fingerprint": identity,
        "facts": {name: value for name, value in facts.items() if name != "weights"},
        "weight_files": len(target.weights()),
        "image_size": target.image_size,
        "input": list(target.sample_shape),
        "dtype": dtype,
        "weight_bytes": weights,
        "peak_bytes": torch.cuda.max_memory_allocated(device) if cuda else None,
        "rows_per_call": timed.rows,
        "samples_per_batch": default_batch(target, threads),
        "seconds_per_row": timed.seconds_per_row,
    }


def _counts(samples: Sequence[Sample]) -> dict[str, Any]:
    kinds = Counter((s.split, s.member) for s in samples)
    names = {True: "members", False: "non-members", None: "unlabelled"}
    splits = {
        split: {name: kinds[split, member] for member, name in names.items() if kinds[split, member]}
        for split in ("audit", "calibration", "memorised")
    }
    captioned = sum(bool(s.caption) for s in samples)
    return {**splits, "captioned": captioned, "samples": len(samples), "no calibration": calibration_gap(samples)}


def _verdict(
    registry: Registry, cls: type[Attack], target: Target, samples: Sequence[Sample] | None, find: Resolve
) -> dict[str, Any]:
    """Whether an attack runs with its defaults; where it does not, why, and which of its presets run all the same."""
    queries, why = _tried(registry, cls, "", target, samples, find)
    presets = [preset for preset in cls.presets if why and not _tried(registry, cls, preset, target, samples, find)[1]]
    return {"runs": why is None, "queries": queries, "presets": presets, "why": why}


def _tried(
    registry: Registry,
    cls: type[Attack],
    preset: str,
    target: Target,
    samples: Sequence[Sample] | None,
    find: Resolve,
) -> tuple[int, str | None]:
    """Queries an image, with those of what it requires, and why it does not run."""
    attack = cls(cls.Params.model_validate(cls.presets[preset] if preset else {}).resolved(target.meta.kind))
    calibration = None if samples is None else calibration_gap(samples)
    queries = attack.queries() if Capability.DENOISE in target.capabilities else attack.generations()
    if reason := obstacle(attack, target, STAND_IN if samples is None else samples, calibration):
        return queries, reason
    for spec, offers in attack.encoders().items():
        try:
            find(spec, offers, cls.meta.name)
        except UnavailableError:
            return queries, f"encoder {spec} is not at hand: `mia-bench describe {spec}` says how to get it"
    for text in attack.requires():
        try:
            base = label_of(registry, text)
        except MiaBenchError as error:
            return queries, f"it requires {text}: {error}"
        more, reason = _tried(registry, registry.attack(base.name), base.preset, target, samples, find)
        if reason:
            return queries, f"it requires {text}: {reason}"
        queries += more
    return queries, None


def _resources(device: str) -> dict[str, Any]:
    import torch
    from huggingface_hub import constants, get_token

    cuda = device.startswith("cuda")
    return {
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "free_memory_bytes": _free_memory(),
        **({"free_device_bytes": torch.cuda.mem_get_info(device)[0]} if cuda else {}),
        "hub_cache": _place(Path(constants.HF_HUB_CACHE)),
        "hub_offline": bool(constants.HF_HUB_OFFLINE),
        "hub_token": get_token() is not None,
        "cache": _place(cache_folder()),
        "extras": {name: {"version": _version(name), "extra": extra} for name, extra in EXTRAS.items()},
    }


def _place(folder: Path) -> dict[str, Any]:
    """A folder that may not be there yet, and how much room its disk has."""
    there = next(p for p in (folder, *folder.absolute().parents) if p.exists())
    return {"path": str(folder), "free_bytes": shutil.disk_usage(there).free}


def _free_memory() -> int | None:
    """What may be used without swapping, where the system says it."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration, ValueError, IndexError):
        return None


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
