"""Weights of a target fetched ahead, for machines without a network."""

from __future__ import annotations

import shlex
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from mia_bench.engine.blame import blaming
from mia_bench.engine.named import open_target
from mia_bench.plugins import Registry
from mia_bench.target import Target, TargetOptions


class Prefetched(BaseModel):
    """What lies on this machine now.

    Attributes:
        target: As given.
        repository: Hub repository that it is read from; empty if it is not.
        revision: Its commit.
        cache: Folder of the hub's cache.
        files: Files of the target, by name, with their bytes.
        new: Names of those that were fetched now.
        command: What works without a network.
    """

    model_config = ConfigDict(frozen=True)

    target: str
    repository: str
    revision: str
    cache: str
    files: dict[str, int]
    new: tuple[str, ...]
    command: str


def prefetch(registry: Registry, spec: str, options: TargetOptions) -> Prefetched:
    """Get the weights of a target into the hub's cache, and nothing else.

    Args:
        registry: All plugins.
        spec: As `run --target` takes it.
        options: Which weights.

    Raises:
        MiaBenchError: There is no such target, or its weights cannot be had or read.
    """
    from huggingface_hub import constants

    cache = Path(constants.HF_HUB_CACHE)
    before = {path.resolve() for path in cache.glob("*/snapshots/**/*") if path.is_file()}
    with blaming("target", spec, registry.targets.get(spec.partition(":")[0], Target)):
        target = open_target(registry, spec, options)
        files = target.fetch()
        facts = target.facts()
    repository, revision = (str(facts.get(k) or facts.get(f"config {k}") or "") for k in ("repository", "revision"))
    pinned = options.model_copy(update={"revision": revision}) if "repository" in facts and "@" not in spec else options
    return Prefetched(
        target=spec,
        repository=repository,
        revision=revision,
        cache=str(cache),
        files={name: path.stat().st_size for name, path in files.items()},
        new=tuple(name for name, path in files.items() if _within(path, cache) and path.resolve() not in before),
        command=f"HF_HUB_OFFLINE=1 {_run(spec, pinned)}",
    )


def _within(path: Path, folder: Path) -> bool:
    return path.absolute().is_relative_to(folder.absolute())


def _run(spec: str, options: TargetOptions) -> str:
    words = ["mia-bench", "run", "--target", spec]
    for name, value in options.given.items():
        option = f"--{name.replace('_', '-')}"
        words += [option] if value is True else [w for v in _list(value) for w in (option, str(v))]
    return shlex.join(words)


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else [value]
