"""Make a checkout's plugins known without installing it: `python benchmarks/gpu/entry_points.py FOLDER`.

FOLDER is on PYTHONPATH; the metadata of the package, its entry points among them, are written there.
"""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path


def write(folder: Path) -> Path:
    """The folder with the metadata of this checkout."""
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    version = project.get("version", "0.0.0")
    place = folder / f"mia_bench-{version}.dist-info"
    place.mkdir(parents=True, exist_ok=True)
    (place / "METADATA").write_text(f"Metadata-Version: 2.1\nName: mia-bench\nVersion: {version}\n", encoding="utf-8")
    groups = {"console_scripts": project.get("scripts", {}), **project.get("entry-points", {})}
    lines = [f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in of.items()) for group, of in groups.items()]
    (place / "entry_points.txt").write_text("\n".join(lines), encoding="utf-8")
    return place


if __name__ == "__main__":
    print(write(Path(sys.argv[1])))
