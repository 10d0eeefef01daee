"""What a user names to datasets and targets; nothing heavy is loaded."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, TypeVar

from mia_bench.dataset import Dataset
from mia_bench.errors import MiaBenchError, UsageError
from mia_bench.plugins import Registry
from mia_bench.target import Target, TargetOptions

T = TypeVar("T", Dataset, Target)


def pair(registry: Registry, dataset: str | None, target: Any, default: str) -> tuple[str, Any]:
    """The dataset and the target a user means: each defaults to the other's own.

    Raises:
        UsageError: The dataset names no target, or labels other targets than this one, whose own dataset is known.
    """
    # A dataset that must be told where it lies cannot be a target's own.
    known = {key: cls.meta for key, cls in registry.datasets.items() if cls.meta.argument[:1] in ("", "[")}
    own = {name: key for key, meta in known.items() for name in meta.targets}
    name = spec_text(target) if target is not None else ""
    dataset = dataset or own.get(name, default)
    labelled = open_dataset(registry, dataset).targets
    if target is None and not labelled:
        raise UsageError(f"dataset {dataset}", "it names no target", "add --target NAME or --target PATH")
    if name in own and labelled and name not in labelled:
        why = f"it labels the members of {', '.join(labelled)}, not of {name}"
        raise UsageError(f"dataset {dataset}", why, f"use --dataset {own[name]}")
    return dataset, labelled[0] if target is None else target


def open_dataset(registry: Registry, spec: str) -> Dataset:
    """`name` or `name:argument` to a dataset.

    Raises:
        UsageError: Unknown name, or an argument to a dataset that takes none.
    """
    name = spec.partition(":")[0]
    if name not in registry.datasets and Path(spec).is_dir():
        takers = [f"--dataset {n}:{spec}" for n, cls in registry.datasets.items() if cls.meta.argument == "PATH"]
        raise UsageError(f"unknown dataset {spec!r}", "it is a folder", f"write {' or '.join(takers)}")
    return _opened(registry.dataset(name), "dataset", spec)


def _opened(cls: type[T], what: str, spec: str) -> T:
    name, colon, argument = spec.partition(":")
    if colon and not cls.meta.takes:
        raise UsageError(f"{what} {spec!r}", f"{name} takes no argument", f"write --{what} {name}")
    return cls(argument)


def open_target(registry: Registry, spec: Any, options: TargetOptions | None = None) -> Target:
    """What a user names to a target (not yet loaded).

    Args:
        registry: All plugins.
        spec: `name`, `family:PATH`, a pipeline folder, a single file, a hub repository `owner/name[@REVISION]`, or a
            pipeline object.
        options: How it is loaded.

    Raises:
        UsageError: Unknown name, an argument to a target that takes none, no family loads this kind of pipeline, or it
            does not read an option.
        UnavailableError: There is no pipeline, or it cannot be had.
    """
    options = options or TargetOptions()
    target = _target(registry, spec, options)
    if unread := sorted(options.given.keys() - target.reads):
        option = f"--{unread[0].replace('_', '-')}"
        raise UsageError(f"target {spec_text(spec)}", f"{target.meta.name} does not read {option}", "leave it out")
    target.options = options
    if target.note:
        logging.getLogger("mia_bench").warning("target %s: %s", spec_text(spec), target.note)
    return target


def open_reference(registry: Registry, target: Target, spec: str) -> None:
    """Give a target the reference model that the user names, loaded as the target is; not yet loaded.

    Raises:
        MiaBenchError: As `open_target`, or its weights cannot be had.
    """
    shared = target.options.model_copy(update={"revision": None, "lora": (), "config": None})
    try:
        target.reference = open_target(registry, spec, shared)
        _ = target.reference.fingerprint  # kept for later
    except MiaBenchError as error:
        raise type(error)(f"--reference: {error.what}", error.why, error.fix) from error


def _target(registry: Registry, spec: Any, options: TargetOptions) -> Target:
    if isinstance(spec, str):
        name = spec.partition(":")[0]
        if name in registry.targets:
            return _opened(_named(registry.target(name), spec), "target", spec)
        repository = spec.partition("@")[0]
        for cls in registry.targets.values():
            if repository in {cls.meta.repository, *cls.meta.formerly} and not Path(spec).exists():
                return _known(cls, spec, repository)
        if not Path(spec).expanduser().exists() and "/" not in spec and not spec.startswith("."):
            return registry.target(name)()  # raises, with suggestions
    from mia_bench.diffusion.source import pipeline_of

    pipeline = pipeline_of(spec, options)
    for cls in registry.targets.values():
        if pipeline in cls.meta.pipelines:
            return cls(spec)
    known = sorted(p for cls in registry.targets.values() for p in cls.meta.pipelines)
    raise UsageError(
        f"target {spec_text(spec)}", f"no plugin loads a {pipeline}", f"known pipelines: {', '.join(known)}"
    )


def _named(cls: type[Target], spec: str) -> type[Target]:
    """A registered target; a folder that is called as it is must be written as a path.

    Raises:
        UsageError: A family, and nothing of it.
    """
    here = Path(spec).exists()
    if cls.meta.pipelines and not cls.meta.repository and ":" not in spec:
        other = f", or --target ./{spec} for what is called so here" if here else ""
        raise UsageError(f"target {spec}", "it is a family of models", f"write --target {spec}:PATH{other}")
    if here:
        logging.getLogger("mia_bench").warning("target %s: the known model; what is called so here is ./%s", spec, spec)
    return cls


def _known(cls: type[Target], spec: str, repository: str) -> Target:
    """A known model by the name of its repository, or of where that was before."""
    target = cls(spec.replace(repository, cls.meta.repository, 1))
    if repository != cls.meta.repository:
        target.note = f"{repository} is gone; {cls.meta.repository} is read in its place"
    return target


def spec_text(spec: Any) -> str:
    """A target as it is shown: what the user wrote, or the class of the object given."""
    return spec if isinstance(spec, str) else type(spec).__name__
