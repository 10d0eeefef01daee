"""`mia-bench doctor` for the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mia_bench.report.text import json_text, pairs, printable, seconds_text, table


def show_diagnosis(found: Mapping[str, Any], as_json: bool) -> None:
    """Print what `examine` found."""
    if as_json:
        print(json_text(found))
        return
    machine = found["machine"]
    blocks = [f"MACHINE\n{pairs(_machine(machine))}"]
    if broken := found["broken plugins"]:
        blocks.append("BROKEN PLUGINS\n" + pairs(broken))
    if target := found.get("target"):
        shown = {k.replace("_", " "): v for k, v in target.items() if k not in ("seconds_per_row", "capabilities")}
        shown["capabilities"] = ", ".join(target["capabilities"])
        speed = {f"{name}, a row": seconds_text(s) for name, s in target["seconds_per_row"].items()}
        blocks.append(f"TARGET\n{pairs(shown | speed)}")
        rows = [[name, "no" if reason else "yes", reason or ""] for name, reason in found["attacks"].items()]
        blocks.append("ATTACKS\n" + table(rows, ["attack", "runs", "why not"]))
    print("\n\n".join(blocks))


def _machine(machine: Mapping[str, Any]) -> dict[str, object]:
    device = machine["device"]
    commit = f" ({machine['commit'][:12]}{', changed' if machine['dirty'] else ''})" if machine["commit"] else ""
    free = machine.get("free_device_bytes")
    return {
        "mia-bench": machine["mia_bench"] + commit,
        "python": machine["python"],
        **machine["libraries"],
        "device": printable(f"{device['type']}: {device['name']}"),
        "device memory": f"{_gib(device['memory_bytes'])}, {_gib(free)} free" if free else "",
        "cores": machine["cores"],
        "memory": _gib(machine["memory_bytes"]),
        "hub cache": f"{machine['hub_cache']}, {_gib(machine['hub_cache_free_bytes'])} free",
    }


def _gib(count: int) -> str:
    return f"{count / 2**30:.1f} GiB"
