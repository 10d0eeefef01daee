"""LoRA adapters: found, hashed, and fused into the weights by diffusers (and peft)."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mia_bench.diffusion import hub
from mia_bench.diffusion.checkpoint import hash_file, quiet
from mia_bench.diffusion.loaded import shapes
from mia_bench.errors import UnavailableError, UsageError, brief

if TYPE_CHECKING:
    from mia_bench.diffusion.pipeline import PipelineTarget
    from mia_bench.target import TargetOptions

USUAL = "pytorch_lora_weights.safetensors"
PAIR = re.compile(r"[._]lora(_A|(_linear_layer)?\.down)\..*")  # the first of a layer's two tensors
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
    unet = getattr(target, "unet", None)
    for text in target.options.lora:
        source, scale = parse(text)
        path = adapter(source)
        if any("dora_scale" in name for name in shapes(path)):
            raise UnavailableError(f"--lora {source}", "a DoRA, of which diffusers reads half", "fuse it yourself")
        try:
            with quiet():
                scheduler = diffusers.DDIMScheduler()  # not read; pipelines are not made without one
                pipeline = cls(**{name: None for name in required} | parts | {"scheduler": scheduler} | more)
                given = {"weight_name": path.name, "unet_config": unet.config if unet else None}
                held = cls.lora_state_dict(str(path.parent), **given)  # with kohya's alphas beside it, if there are any
                pipeline.load_lora_weights(str(path.parent), weight_name=path.name, adapter_name="adapter")
                fits = {part: getattr(pipeline, part) for part in pipeline.get_list_adapters()}
                left = unmatched(held[0] if isinstance(held, tuple) else held, fits)
                if fits and not left:
                    # By default diffusers fuses FLUX's transformer alone.
                    pipeline.fuse_lora(components=list(fits), lora_scale=scale)
                    pipeline.unload_lora_weights()
        except Exception as error:  # many kinds, of diffusers and peft
            why = f"{type(error).__name__}: {brief(error)}"
            raise UnavailableError(f"--lora {source}", why, "use an adapter of this kind of model") from error
        if not fits:
            raise UnavailableError(f"--lora {source}", "no weight of the model has its name", "check the adapter")
        if left:
            why = f"the model lacks {len(left)} of the layers that it changes, e.g. {left[0]}"
            raise UnavailableError(f"--lora {source}", why, "use an adapter of this kind of model")


def unmatched(names: Iterable[str], networks: Mapping[str, Any]) -> list[str]:
    """The layers that an adapter changes and the networks lack.

    Args:
        names: Of its tensors, a pair for each layer, in any of the forms that diffusers reads.
        networks: Those that it was loaded into, by part.
    """
    wanted = {_layer(PAIR.sub("", name)): PAIR.sub("", name) for name in names if PAIR.search(name)}
    found = {
        _layer(f"{part}.{name}")
        for part, network in networks.items()
        for name, layer in network.named_modules()
        if hasattr(layer, "merged_adapters")
    }
    # As many of both is a fit, however they are called.
    return sorted(wanted[name] for name in wanted.keys() - found) if len(wanted) > len(found) else []


def _layer(name: str) -> str:
    """The name of a layer, the same in the form of peft, of diffusers before it, and of flattened text encoders."""
    plain = name.replace(".text_model.", ".").replace(".processor.", ".")
    return re.sub(r"\.(?:to_)?(q|k|v|out)(?:_proj)?(?:\.0)?$", r".\1", plain)
