"""Pipelines that are not in a folder: loaded already, or in a single file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mia_bench.diffusion.checkpoint import (
    PICKLED,
    TEXTS,
    WHOLE,
    Checkpoint,
    Folder,
    complete,
    hash_file,
    quiet,
    settled,
)
from mia_bench.errors import UnavailableError, brief

if TYPE_CHECKING:
    import torch

# What a file says about its configuration; of others it does not tell, e.g., whether they predict noise or velocity.
TELLING = frozenset({"v1", "xl_base", "sd3", "sd35_large", "sd35_medium", "flux-dev", "flux-schnell"})
# Of a configuration, what tells who saved it and when, not what it does.
STAMPS = frozenset({"transformers_version", "architectures", "dtype", "torch_dtype"})
# How names begin in a file that holds the part; of text encoders, either both CLIP's are there or none.
VAE = ("first_stage_model.", "vae.")
T5 = ("text_encoders.t5xxl.",)
CLIP = ("cond_stage_model.", "conditioner.embedders.", "text_encoders.clip")


class Loaded(Checkpoint):
    """A pipeline object. Its networks are used as they are: moved and cast in place.

    Args:
        pipeline: Of diffusers.
        facts: What is recorded about where it came from.
    """

    def __init__(self, pipeline: Any, facts: Mapping[str, str] | None = None) -> None:
        self.pipeline = pipeline
        self.facts = facts or {"object": type(pipeline).__name__}

    def index(self) -> Mapping[str, Any]:
        return {**self.pipeline.config, "_class_name": type(self.pipeline).__name__}

    def config(self, part: str) -> Mapping[str, Any]:
        found = self._part(part)
        config = getattr(found, "config", {})
        return {"_class_name": type(found).__name__, **(config.to_dict() if hasattr(config, "to_dict") else config)}

    def load(self, classes: Sequence[str], part: str, dtype: str = "float32") -> Any:
        import torch

        found = self._part(part)
        if not {c.__name__.removesuffix("Fast") for c in type(found).__mro__} & {
            c.removesuffix("Fast") for c in classes
        }:
            why = f"it is a {type(found).__name__}, not a {' or '.join(classes)}"
            raise UnavailableError(f"target part {part}", why, WHOLE)
        return settled(found, dtype) if isinstance(found, torch.nn.Module) else found

    def hashes(self, parts: Iterable[str]) -> dict[str, str]:
        return {name: value for part in parts for name, value in self._hashes(part)}

    def _hashes(self, part: str) -> Iterator[tuple[str, str]]:
        found = self._part(part)
        if hasattr(found, "state_dict"):
            yield f"{part}/weights", hash_tensors(found.state_dict())
        if hasattr(found, "named_modules") and (scales := adapter_scales(found)):
            yield f"{part}/adapters", hash_json(scales)
        if hasattr(found, "get_vocab"):
            yield f"{part}/vocabulary", hash_json(vocabulary(found))
        config = {k: v for k, v in self.config(part).items() if not k.startswith("_") and k not in STAMPS}
        yield f"{part}/config", hash_json({**config, "class": type(found).__name__})

    def _part(self, part: str) -> Any:
        found = getattr(self.pipeline, part, None)
        if found is None:
            raise UnavailableError(f"pipeline {type(self.pipeline).__name__}", f"its part {part} is missing", WHOLE)
        return found


def adapter_scales(network: Any) -> dict[str, Any]:
    """What peft does at each layer beside the weights; nothing where there are no adapters."""
    layers = {name: layer for name, layer in network.named_modules() if hasattr(layer, "merged_adapters")}
    states = ("scaling", "active_adapters", "merged_adapters", "disable_adapters")
    return {name: {state: getattr(layer, state, None) for state in states} for name, layer in layers.items()}


def vocabulary(tokenizer: Any) -> dict[str, Any]:
    """All that decides a tokenizer's ids, without what it was last asked to pad and truncate to."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    known = json.loads(backend.to_str()) if backend else {"vocabulary": tokenizer.get_vocab()}
    asked = ("pad_token", "pad_token_id", "model_max_length", "padding_side", "truncation_side")
    return {**known, "padding": None, "truncation": None, **{name: getattr(tokenizer, name, None) for name in asked}}


def hash_json(value: Any) -> str:
    """sha256 of a value, the same in whatever order its keys are."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def hash_tensors(tensors: Mapping[str, torch.Tensor]) -> str:
    """sha256 of names, shapes, precision and bytes."""
    import torch

    total = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name].detach().cpu().contiguous()
        total.update(f"{name}{tuple(value.shape)}{value.dtype}".encode())
        total.update(value.reshape(-1).view(torch.uint8).numpy().tobytes() if value.numel() else b"")
    return total.hexdigest()


class SingleFile(Checkpoint):
    """A pipeline in one file, in the layout of the program that trained it; diffusers converts it.

    Args:
        path: The file.
        configured: A pipeline folder of the same kind, whose configurations and vocabularies are used; text encoders
            and a VAE that are not in the file come from there too.
        allow_pickle: Whether the file may be pickled; tensors alone are unpickled.

    Raises:
        UnavailableError: It is pickled, and that is not allowed.
    """

    def __init__(self, path: Path, configured: Folder, allow_pickle: bool = False) -> None:
        refuse_pickle(path, allow_pickle)
        self.path, self.configured, self.allow_pickle = path, configured, allow_pickle
        self.facts = {"file": path.name, **{f"config {k}": v for k, v in configured.facts.items()}}

    def index(self) -> Mapping[str, Any]:
        return self.configured.index()

    def config(self, part: str) -> Mapping[str, Any]:
        return self.configured.config(part)

    def hashes(self, parts: Iterable[str]) -> dict[str, str]:
        return {name: hash_file(path) for name, path in self.paths(parts).items()}

    def paths(self, parts: Iterable[str]) -> dict[str, Path]:
        found = {"file": self.path}  # a model is the same under another name
        for part in parts:
            folder = self.configured.place(part)
            texts = [p for p in sorted(folder.iterdir()) if p.suffix in TEXTS] if folder.is_dir() else []
            others = self.configured.files(part) if self.lacks(part) else []
            found |= {f"{part}/{path.name}": path for path in dict.fromkeys([*texts, *others])}
        return found

    def check(self, parts: Iterable[str]) -> None:
        self.configured.check(part for part in parts if self.lacks(part))

    def load(self, classes: Sequence[str], part: str, dtype: str = "float32") -> Any:
        cls = self.class_of(part, classes)
        if not hasattr(cls, "forward") or self.lacks(part):
            return self.configured.load(classes, part, dtype)
        what = f"target file {self.path}"
        network, missing = self._converted(part, dtype, what)
        complete(what, cls, [*missing, *(name for name, value in network.named_parameters() if value.is_meta)])
        return settled(network, dtype)

    def _converted(self, part: str, dtype: str, what: str) -> tuple[Any, list[str]]:
        """A network of the file, and the names of what it lacked."""
        import diffusers
        import torch

        index = self.index()
        others = {n: None for n, value in index.items() if isinstance(value, list) and n not in (part, "_class_name")}
        try:
            with quiet(), recorded() as missing:
                pipeline = getattr(diffusers, str(index["_class_name"])).from_single_file(
                    str(self.path),
                    config=str(self.configured.root),
                    local_files_only=True,
                    torch_dtype=getattr(torch, dtype),
                    **others,
                )
        except Exception as error:  # many kinds, from KeyError to safetensors' own
            fix = "give the folder or repository of a pipeline of its kind with --config"
            raise UnavailableError(what, f"{type(error).__name__}: {brief(error)}", fix) from error
        return getattr(pipeline, part), missing

    def lacks(self, part: str) -> bool:
        """Whether it is a text encoder or VAE whose weights are not in the file; a pickled one is taken for whole."""
        starts = VAE if part == "vae" else T5 if "T5" in str(self.index().get(part)) else CLIP
        asked = part == "vae" or part.startswith("text_encoder")
        return asked and self.path.suffix not in PICKLED and not any(n.startswith(starts) for n in shapes(self.path))


def refuse_pickle(path: Path, allow_pickle: bool) -> None:
    """Check that a file of weights may be read.

    Raises:
        UnavailableError: It is pickled, or none.
    """
    if path.suffix in PICKLED and not allow_pickle:
        why = f"it is pickled ({path.suffix}), which can hide code"
        raise UnavailableError(f"target file {path}", why, "convert it to .safetensors, or add --allow-pickle")
    if path.suffix not in {*PICKLED, ".safetensors"}:
        raise UnavailableError(f"target file {path}", "not a file of weights", "give a .safetensors file or a folder")


def refuse_adapter(path: Path) -> None:
    """Check that a file is not one of weights that go beside a model's.

    Raises:
        UnavailableError: It is, or it is damaged.
    """
    names = shapes(path)
    if any(".lora_" in name or "_lora." in name or ".lora." in name for name in names):
        raise UnavailableError(f"target file {path}", "it is a LoRA, no model", f"--target MODEL --lora {path}")
    if any(name.startswith(("control_model.", "controlnet_")) for name in names):
        raise UnavailableError(f"target file {path}", "it is a ControlNet, no model", "give the model that it is for")


def shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors in a safetensors file; nothing for a pickled one.

    Raises:
        UnavailableError: It is damaged.
    """
    if path.suffix in PICKLED:
        return {}
    from safetensors import safe_open

    try:
        with safe_open(path, "pt") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except Exception as error:  # safetensors' own
        raise UnavailableError(f"target file {path}", brief(error), "fetch it again") from error


def configuration_of(path: Path) -> str | None:
    """The repository whose configuration fits a file, as diffusers tells it by names and shapes; None if it cannot."""
    import torch
    from diffusers.loaders.single_file_utils import fetch_diffusers_config, infer_diffusers_model_type

    found = {name: torch.empty(shape, device="meta") for name, shape in shapes(path).items()}
    velocity = {"v_pred", "ztsnr"} & set(found)
    if "model.diffusion_model.input_blocks.0.0.weight" not in found and not any(
        "double_blocks" in n or "joint_blocks" in n for n in found
    ):
        return None  # diffusers takes whatever it does not know for Stable Diffusion 1
    if velocity or infer_diffusers_model_type(found) not in TELLING:
        return None
    return str(fetch_diffusers_config(found)["pretrained_model_name_or_path"])


@contextmanager
def recorded() -> Iterator[list[str]]:
    """Names of what the networks loaded within lacked: conversion leaves such weights random, and says nothing."""
    import torch

    missing: list[str] = []
    plain = torch.nn.Module.load_state_dict

    def load(self: torch.nn.Module, *args: Any, **options: Any) -> Any:
        report = plain(self, *args, **options)
        missing.extend(report.missing_keys)
        return report

    torch.nn.Module.load_state_dict = load  # type: ignore[method-assign]
    try:
        yield missing
    finally:
        torch.nn.Module.load_state_dict = plain  # type: ignore[method-assign]
