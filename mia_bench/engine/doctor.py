"""What this machine has, and which attacks can be run on a target."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from mia_bench.attack import Attack, Control
from mia_bench.dataset import Sample
from mia_bench.engine.encoders import Resolve, resolver
from mia_bench.engine.estimate import estimate
from mia_bench.engine.named import open_dataset, open_target
from mia_bench.engine.plan import calibration_gap, obstacle
from mia_bench.engine.provenance import environment
from mia_bench.engine.run import default_batch, open_device
from mia_bench.errors import UnavailableError
from mia_bench.plugins import Registry
from mia_bench.target import Target

STAND_IN = (Sample("a", Path(), "", caption="a caption", member=True, split="calibration"),)  # that of any good dataset


def examine(
    registry: Registry, target: str | None = None, dataset: str | None = None, device: str | None = None
) -> dict[str, Any]:
    """Look at the machine, and load a target if one is named.

    Args:
        registry: All plugins.
        target: As `run --target` takes it.
        dataset: As `run --dataset` takes it; without one, samples are taken to have captions and a calibration set.
        device: torch device.

    Returns:
        `machine`, `broken plugins` (name -> error) and, with a target, `target` and `attacks` (name -> why it cannot be
        run, or None).

    Raises:
        MiaBenchError: What was named cannot be opened.
    """
    where = open_device(device)
    found: dict[str, Any] = {
        "machine": environment(where) | _resources(where),
        "broken plugins": {plugin.name: plugin.error for plugin in registry.broken},
    }
    samples = open_dataset(registry, dataset).samples() if dataset else None
    if target:
        opened = open_target(registry, target)
        identity = opened.fingerprint
        opened.open(where, threads=len(os.sched_getaffinity(0)))
        timed = estimate([], opened)
        found["target"] = {
            "name": target,
            "family": opened.meta.name,
            "kind": opened.meta.kind,
            "fingerprint": identity,
            "capabilities": sorted(opened.capabilities),
            "image_size": opened.image_size,
            "input": list(opened.sample_shape),
            "rows_per_call": timed.rows,
            "samples_per_batch": default_batch(opened, len(os.sched_getaffinity(0))),
            "seconds_per_row": timed.seconds_per_row,
        }
        find = resolver(registry, opened.meta.kind)
        attacks = {n: c for n, c in sorted(registry.attacks.items()) if not issubclass(c, Control)}
        found["attacks"] = {name: _reason(cls, opened, samples, find) for name, cls in attacks.items()}
    return found


def _reason(cls: type[Attack], target: Target, samples: Any, find: Resolve) -> str | None:
    attack = cls(cls.Params().resolved(target.meta.kind))
    if samples is None:
        reason = obstacle(attack, target, STAND_IN, None)
    else:
        reason = obstacle(attack, target, samples, calibration_gap(samples))
    if reason:
        return reason
    for spec, offers in attack.encoders().items():
        try:
            find(spec, offers, cls.meta.name)
        except UnavailableError as error:
            _, found, presets = error.fix.partition("; runs without: ")
            instead = f"; without it: {presets}" if found else f"; `mia-bench describe {spec}` says how to get it"
            return f"encoder {spec} is not at hand{instead}"
    return None


def _resources(device: str) -> dict[str, Any]:
    import torch

    cache = Path(os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "huggingface"))
    place = next(p for p in (cache.expanduser(), *cache.expanduser().parents) if p.exists())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    free = {"free_device_bytes": torch.cuda.mem_get_info(device)[0]} if device.startswith("cuda") else {}
    return {
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": memory,
        **free,
        "hub_cache": str(cache.expanduser()),
        "hub_cache_free_bytes": shutil.disk_usage(place).free,
    }
