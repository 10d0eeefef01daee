"""LoRA adapters: found, hashed, and fused into the weights by diffusers (and peft)."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mia_bench.diffusion import hub
from mia_bench.diffusion.checkpoint import hash_file, quiet
from mia_bench.errors import UnavailableError, UsageError, brief

if TYPE_CHECKING:
    from mia_bench.diffusion.pipeline import PipelineTarget
    from mia_bench.target import TargetOptions

USUAL = "pytorch_lora_weights.safetensors"
GIVE = "give a .safetensors file, its folder, or a repository: --lora PATH_OR_ID[:SCALE]"


def parse(text: str) -> tuple[str, float]:
    """`PATH_OR_ID[:SCALE]` to both; the scale is 1 if not given.

    Raises:
        UsageError: What follows the last colon is no number.
    """
    source, colon, scale = text.rpartition(":")
    if not colon:
        return text, 1.0
    if not re.fullmatch(r"-?(\d+\.?\d*|\.\d+)(e-?\d+)?", scale):
        raise UsageError(f"--lora {text}", f"{scale!r} is no number", GIVE)
    return source, float(scale)


def adapter(source: str, allow_pickle: bool = False) -> Path:
    """The file of an adapter.

    Raises:
        UnavailableError: There is none, or more than one.
    """
    path = Path(source).expanduser()
    if hub.is_repository(source):
        name, revision = hub.parse(source)
        path = hub.snapshot(name, revision, ["*.safetensors"])
    if path.is_dir():
        files = sorted(path.glob("*.safetensors"))
        usual = [f for f in files if f.name == USUAL] or files
        if len(usual) != 1:
            found = ", ".join(f.name for f in files) or "no *.safetensors"
            raise UnavailableError(f"--lora {source}", f"{found} in {path}", "name the file")
        path = usual[0]
    if not path.is_file():
        raise UnavailableError(f"--lora {source}", "no such file", GIVE)
    if path.suffix != ".safetensors":
        raise UnavailableError(f"--lora {source}", "not a .safetensors file", "convert it; pickle can hide code")
    return path


def adapters(options: TargetOptions) -> dict[str, Path]:
    """The file of each adapter, by its place and scale."""
    parsed = [parse(text) for text in options.lora]
    return {f"lora {k} x {scale}": adapter(source) for k, (source, scale) in enumerate(parsed)}


def adapter_hashes(options: TargetOptions) -> dict[str, str]:
    """sha256 of each adapter, by its place and scale."""
    return {name: hash_file(path) for name, path in adapters(options).items()}


def fuse(target: PipelineTarget) -> None:
    """Add the adapters that the user named to the weights of a target, one after the other.

    Raises:
        UnavailableError: peft is not installed, or an adapter does not fit.
    """
    import diffusers
    from diffusers.utils import is_peft_available

    if not is_peft_available():
        why = "diffusers reads adapters with peft, which is not installed"
        raise UnavailableError(f"--lora {target.options.lora[0]}", why, "pip install 'mia-bench[lora]'")
    named = str(target.checkpoint.index().get("_class_name"))
    cls = getattr(diffusers, named if named in target.meta.pipelines else sorted(target.meta.pipelines)[0])
    parts: dict[str, Any] = {part: getattr(target, part, None) for part in target.parts if part != "scheduler"}
    required = inspect.signature(cls.__init__).parameters.keys() - {"self", "requires_safety_checker"}
    more = {"requires_safety_checker": False} if "requires_safety_checker" in cls.__init__.__code__.co_varnames else {}
    for text in target.options.lora:
        source, scale = parse(text)
        path = adapter(source)
        try:
            with quiet():
                scheduler = diffusers.DDIMScheduler()  # not read; pipelines are not made without one
                pipeline = cls(**{name: None for name in required} | parts | {"scheduler": scheduler} | more)
                pipeline.load_lora_weights(str(path.parent), weight_name=path.name, adapter_name="adapter")
                fits = list(pipeline.get_list_adapters())  # by default diffusers fuses FLUX's transformer alone
                if fits:
                    pipeline.fuse_lora(components=fits, lora_scale=scale)
                    pipeline.unload_lora_weights()
        except Exception as error:  # many kinds, of diffusers and peft
            why = f"{type(error).__name__}: {brief(error)}"
            raise UnavailableError(f"--lora {source}", why, "use an adapter of this kind of model") from error
        if not fits:
            raise UnavailableError(f"--lora {source}", "no weight of the model has its name", "check the adapter")
