"""What a shard was made with; recorded, never compared."""

from __future__ import annotations

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import mia_bench

LIBRARIES = ("torch", "diffusers", "transformers", "numpy", "pillow", "pyarrow", "scikit-learn")


def environment(device: str) -> dict[str, Any]:
    """Commit, device, driver and library versions."""
    return {
        "mia_bench": mia_bench.__version__,
        "commit": _git("rev-parse", "HEAD"),
        "dirty": None if (status := _git("status", "--porcelain")) is None else bool(status),
        "python": platform.python_version(),
        "libraries": {name: found for name in LIBRARIES if (found := _version(name))},
        "device": _device(device),
    }


def _device(device: str) -> dict[str, Any]:
    import torch

    if torch.device(device).type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        memory = properties.total_memory
        return {"type": "cuda", "name": properties.name, "memory_bytes": memory, "cuda": torch.version.cuda}
    return {"type": device, "name": _processor(), "capability": torch.backends.cpu.get_cpu_capability()}


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _git(*arguments: str) -> str | None:
    """Output of a git command on the harness's own checkout, or None outside one."""
    root = Path(mia_bench.__file__).parents[1]
    if not (root / ".git").exists():
        return None
    try:
        done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
