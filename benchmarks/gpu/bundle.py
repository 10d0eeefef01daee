"""Collect the wheels that a bare GPU machine lacks: `python benchmarks/gpu/bundle.py [FOLDER]`.

For a machine without a network that has Python 3.12, torch and `THERE`. The wheels are for Linux on x86-64, at the
versions installed here, without their dependencies but with all that are lacking there. Put FOLDER (`.whl`, to be
ignored by git) beside the checkout that travels, and begin each command there with

    python3 -m pip install -q --no-index --no-deps --target /tmp/site .whl/*.whl
    export PYTHONPATH=/tmp/site:$PWD:$PWD/plugins
    python3 benchmarks/gpu/entry_points.py /tmp/site

The last line makes the plugins of the checkout known without installing it.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Collection
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

import click

THERE = frozenset(
    [
        "torch",
        "torchvision",
        "transformers",
        "accelerate",
        "scikit-learn",
        "scipy",
        "numpy",
        "pillow",
        "pyarrow",
        "matplotlib",
        "rich",
        "tabulate",
        "pluggy",
        "click",
        "jinja2",
        "httpx",
        "pytest",
        "huggingface-hub",
        "safetensors",
        "tokenizers",
        "tqdm",
        "packaging",
        "filelock",
        "regex",
        "requests",
        "pyyaml",
        "joblib",
        "threadpoolctl",
        "typing-extensions",
        "fsspec",
    ]
)
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_27_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def lacking(there: Collection[str], package: str = "mia-bench") -> set[str]:
    """What the package needs, directly or not, beside what is there; without extras."""
    known, found, todo = {canonical(name) for name in there}, set[str](), [package]
    while todo:
        try:
            needs = requires(todo.pop()) or []
        except PackageNotFoundError:
            continue
        for need in needs:
            name = canonical(re.split(r"[\s;<>=!~\[(]", need, maxsplit=1)[0])
            if "extra ==" not in need and "sys_platform" not in need and name not in known | found:
                found.add(name)
                todo.append(name)
    return found


@click.command()
@click.argument("folder", type=click.Path(path_type=Path), default=Path(".whl"))
@click.option("--python", default="3.12", show_default=True, help="Python there.")
@click.option("--list", "listing", is_flag=True, help="Say what would be collected, and stop.")
def main(folder: Path, python: str, listing: bool) -> int:
    wanted = [f"{name}=={version(name)}" for name in sorted(lacking(THERE)) if installed(name)]
    print("\n".join(wanted))
    if listing:
        return 0
    platforms = [f"--platform={platform}" for platform in PLATFORMS]
    given = ["--no-deps", "--only-binary=:all:", f"--python-version={python}", "--implementation=cp", *platforms]
    subprocess.run([sys.executable, "-m", "pip", "download", *given, "-d", str(folder), *wanted], check=True)
    print(f"{sum(p.stat().st_size for p in folder.glob('*.whl')) / 2**20:.0f} MiB in {folder}")
    return 0


def installed(name: str) -> bool:
    try:
        return bool(version(name))
    except PackageNotFoundError:
        return False


if __name__ == "__main__":
    sys.exit(main(standalone_mode=False))
