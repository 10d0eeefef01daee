"""`mia-bench doctor` for the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mia_bench.errors import MiaBenchError
from mia_bench.report.text import json_text, pairs, seconds_text, table


def show_diagnosis(found: Mapping[str, Any], error: MiaBenchError | None, as_json: bool) -> None:
    """Print what `examine` found; the error is for the command to end with."""
    if as_json:
        said = {"what": error.what, "why": error.why, "fix": error.fix} if error else None
        print(json_text({**found, "error": said}))
        return
    blocks = [f"MACHINE\n{pairs(_machine(found['machine']))}"]
    if broken := found["broken plugins"]:
        blocks.append("BROKEN PLUGINS\n" + pairs(broken))
    if dataset := found.get("dataset"):
        blocks.append(f"DATASET\n{pairs(_dataset(dataset))}")
    if target := found.get("target"):
        blocks.append(f"TARGET\n{pairs(_target(target))}")
    if attacks := found.get("attacks"):
        rows = [[name, *_attack(verdict)] for name, verdict in attacks.items()]
        blocks.append("ATTACKS\n" + table(rows, ["attack", "runs", "queries", "why not"], right=(2,)))
    print("\n\n".join(blocks))


def _machine(machine: Mapping[str, Any]) -> dict[str, object]:
    device = machine["device"]
    commit = f" ({machine['commit'][:12]}{', changed' if machine['dirty'] else ''})" if machine["commit"] else ""
    cuda = f", CUDA {device['cuda']}" if device.get("cuda") else ""
    free = machine.get("free_device_bytes")
    hub = "offline: HF_HUB_OFFLINE is set" if machine["hub_offline"] else ""
    if not machine["hub_token"]:
        hub += ("; " if hub else "") + "no token: `hf auth login` for gated models"
    extras = {
        name: found["version"] or f"not installed: pip install 'mia-bench[{found['extra']}]'"
        for name, found in machine["extras"].items()
    }
    return {
        "mia-bench": machine["mia_bench"] + commit,
        "python": machine["python"],
        **machine["libraries"],
        **extras,
        "device": f"{device['type']}: {device['name']}{cuda}",
        "device memory": f"{_gib(device['memory_bytes'])}, {_gib(free)} free" if free is not None else "",
        "cores": machine["cores"],
        "memory": _gib(machine["memory_bytes"]) + _free(machine["free_memory_bytes"]),
        "hub cache": _place(machine["hub_cache"]),
        "hub": hub,
        "cache": _place(machine["cache"]),
    }


def _dataset(dataset: Mapping[str, Any]) -> dict[str, object]:
    def counted(split: str) -> str:
        return ", ".join(f"{count:,} {name}" for name, count in dataset[split].items())

    return {
        "name": dataset["name"],
        "audit": counted("audit"),
        "calibration": counted("calibration") or dataset["no calibration"],
        "memorised": counted("memorised"),
        "captions": f"{dataset['captioned']:,} of {dataset['samples']:,} samples",
    }


def _target(target: Mapping[str, Any]) -> dict[str, object]:
    peak = target["peak_bytes"]
    return {
        "name": target["name"],
        "family": target["family"],
        **{name: value for name, value in target["facts"].items() if isinstance(value, str | int | float)},
        "fingerprint": f"{target['fingerprint']}, of {_files(target['weight_files'])}",
        "capabilities": ", ".join(target["capabilities"]),
        "images": f"{target['image_size']} px a side",
        "input": f"{' x '.join(map(str, target['input']))} ({target['kind']}), {target['dtype']}",
        "device memory": f"{_gib(target['weight_bytes'])} weights, {_gib(peak)} at most" if peak else "",
        "rows per call": target["rows_per_call"],
        "samples per batch": target["samples_per_batch"],
        **{f"{name}, a row": seconds_text(s) for name, s in target["seconds_per_row"].items()},
    }


def _files(count: int) -> str:
    return {0: "its settings alone", 1: "1 file"}.get(count, f"{count} files")


def _attack(verdict: Mapping[str, Any]) -> list[object]:
    if verdict["runs"]:
        return ["yes", verdict["queries"], ""]
    if not verdict["presets"]:
        return ["no", "", verdict["why"]]
    return [", ".join(f"@{preset}" for preset in verdict["presets"]), "", verdict["why"]]


def _place(folder: Mapping[str, Any]) -> str:
    return f"{folder['path']}{_free(folder['free_bytes'])}"


def _free(count: int | None) -> str:
    return "" if count is None else f", {_gib(count)} free"


def _gib(count: int) -> str:
    return f"{count / 2**30:.1f} GiB"
