"""From what a user names to a checkpoint: a folder, a single file, a hub repository, or a pipeline object."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mia_bench.diffusion import hub
from mia_bench.diffusion.checkpoint import INDEX, Checkpoint, Folder, chosen, read_json
from mia_bench.diffusion.loaded import Loaded, SingleFile, configuration_of, refuse_adapter, refuse_pickle
from mia_bench.errors import UnavailableError, UsageError

if TYPE_CHECKING:
    from mia_bench.target import TargetOptions

TAKEN = "give a folder, a .safetensors file, or a repository owner/name"


def pipeline_of(spec: Any, options: TargetOptions) -> str:
    """Class of the pipeline that `spec` names, as its `model_index.json` has it.

    Raises:
        UnavailableError: There is no pipeline.
        UsageError: Its code lies in the repository.
    """
    name = open_checkpoint(spec, options, ()).index().get("_class_name")
    if isinstance(name, list):
        why = f"its pipeline is code of its own ({'.'.join(map(str, name))}), which is never run"
        raise UsageError(f"target {spec}", why, "name the family that fits: --target FAMILY:PATH")
    return str(name)


def open_checkpoint(spec: Any, options: TargetOptions, parts: Iterable[str]) -> Checkpoint:
    """What a target's weights are read from; of a repository, these parts are fetched.

    Raises:
        UnavailableError: It is not there, or not to be had.
        UsageError: An option that does not fit it.
    """
    if not isinstance(spec, str):
        _unused(options, "a pipeline object", "revision", "config", "allow_pickle")
        if options.lora:
            why = "the target is a pipeline object, whose own weights each run would change again"
            fix = "fuse it yourself: pipeline.load_lora_weights(...), fuse_lora(), unload_lora_weights()"
            raise UsageError(f"--lora {options.lora[0]}", why, fix)
        return Loaded(spec)
    path = Path(spec).expanduser()
    if path.is_file():
        _unused(options, "a file", "revision")
        refuse_pickle(path, options.allow_pickle)
        refuse_adapter(path)
        return _single_file(path, options, tuple(parts))
    _unused(options, "a folder or repository, which has its own", "config")
    if path.is_dir():
        _unused(options, "a folder", "revision")
        if not parts:
            read_json(path / INDEX)
        return Folder(path, allow_pickle=options.allow_pickle)
    if not hub.is_repository(spec):
        raise UnavailableError(f"target {spec}", "no such folder", f"give the folder that holds {INDEX}")
    return _repository(spec, options, tuple(parts))


def _repository(spec: str, options: TargetOptions, parts: tuple[str, ...], weights: bool = True) -> Folder:
    """The snapshot of a repository, with the weights of full precision and as safetensors if there are any."""
    name, revision = hub.parse(spec, options.revision)
    root = hub.snapshot(name, revision, [INDEX])
    commit = root.name
    index = read_json(root / INDEX, f"{name} holds no diffusers pipeline; {TAKEN}")
    wanted = [part for part in parts if (index.get(part) or [None])[0]]
    facts = {"repository": name, "revision": commit} | ({"asked revision": revision} if revision else {})
    repair = f"`{hub.fetching(name, commit, hub.patterns(wanted))}`"
    folder = Folder(root, allow_pickle=options.allow_pickle, repair=repair, facts=facts)
    if not wanted:
        return folder
    if not weights:
        hub.snapshot(name, commit, [p for p in hub.patterns(wanted) if not p.endswith(".safetensors")])
        return folder
    hub.snapshot(name, commit, hub.patterns(wanted))
    for variant, suffix in (("", "safetensors"), (".fp16", "safetensors"), ("", "bin"), (".fp16", "bin")):
        networks = [p for p in wanted if (root / p / "config.json").exists()]
        lacking = [p for p in networks if not chosen((f.name for f in (root / p).iterdir()), options.allow_pickle)]
        if lacking and (suffix != "bin" or options.allow_pickle):
            hub.snapshot(name, commit, hub.patterns(lacking, variant, suffix))
    return folder


def _single_file(path: Path, options: TargetOptions, parts: tuple[str, ...]) -> SingleFile:
    """A file, with the text encoders and the VAE that it lacks."""
    configured = _configured(path, options, parts)
    found = SingleFile(path, configured, options.allow_pickle)
    repository = configured.facts.get("repository")
    if repository and (lacking := tuple(p for p in parts if configured.has(p) and found.lacks(p))):
        _repository(f"{repository}@{configured.facts['revision']}", options, lacking)
    return found


def _configured(path: Path, options: TargetOptions, parts: tuple[str, ...]) -> Folder:
    """The folder whose configurations a single file goes by."""
    given = options.config or configuration_of(path)
    if given is None:
        why = "it does not say which configuration it has, e.g. whether it predicts noise or velocity"
        fix = "add --config FOLDER or --config OWNER/NAME, a pipeline of its kind"
        raise UnavailableError(f"target file {path}", why, fix)
    folder = Path(given).expanduser()
    if folder.is_dir():
        read_json(folder / INDEX)
        return Folder(folder, allow_pickle=options.allow_pickle)
    if not hub.is_repository(given):
        raise UnavailableError(
            f"--config {given}", "no such folder", f"give a folder that holds {INDEX}, or owner/name"
        )
    try:
        return _repository(given, options, parts, weights=False)
    except UnavailableError as error:
        fix = f"{error.fix}; or add --config FOLDER, a pipeline of its kind on this machine"
        raise UnavailableError(f"configuration of {path.name}: {error.what}", error.why, fix) from error


def _unused(options: TargetOptions, what: str, *names: str) -> None:
    for name in names:
        if getattr(options, name):
            raise UsageError(f"--{name.replace('_', '-')}", f"the target is {what}", "leave it out")
