"""Reading the parts of a diffusers pipeline folder: quietly, safetensors only, offline, no remote code."""

from __future__ import annotations

import hashlib
import json
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mia_bench.errors import UnavailableError, brief

if TYPE_CHECKING:
    from mia_bench.diffusion.schedule import Schedule

SAVE = "save the pipeline again with `save_pretrained(..., safe_serialization=True)`"


def component(cls: Any, folder: Path) -> Any:
    """Load one part of a pipeline from its folder, in evaluation mode if it is a network.

    Raises:
        UnavailableError: The folder or its weights are missing or damaged.
    """
    import diffusers.utils.logging as diffusers_logging
    import transformers.utils.logging as transformers_logging

    diffusers_logging.set_verbosity_error()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    is_network = hasattr(cls, "forward")
    options: dict[str, Any] = {"use_safetensors": True} if is_network else {}
    if is_network and cls.__module__.startswith("diffusers"):
        options["low_cpu_mem_usage"] = False  # its default complains when accelerate is not installed
    _check_part(folder)
    if is_network and not any(folder.glob("*.safetensors")):
        raise UnavailableError(f"target part {folder}", "no weights (*.safetensors) in it", SAVE)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            part = cls.from_pretrained(str(folder), local_files_only=True, **options)
    except Exception as error:  # many kinds, from OSError to safetensors' own
        raise UnavailableError(
            f"target part {folder}",
            f"{type(error).__name__}: {brief(error)}",
            SAVE,
        ) from error
    return part.eval().requires_grad_(False) if is_network else part


def schedule_of(folder: Path) -> Schedule:
    """The noise schedule of a scheduler folder, from its betas; the product is taken in float64.

    Raises:
        UnavailableError: There is no readable scheduler, or one without betas.
    """
    import diffusers

    from mia_bench.diffusion.schedule import Schedule

    config = read_json(folder / "scheduler_config.json")
    name = str(config.get("_class_name"))
    scheduler = component(getattr(diffusers, name, diffusers.DDPMScheduler), folder)
    if not hasattr(scheduler, "betas"):
        raise UnavailableError(f"scheduler {name}", "it has no betas", "use a DDPM- or DDIM-style scheduler")
    try:
        offset = int(scheduler.config.get("steps_offset", 0))
        return Schedule.from_betas(scheduler.betas.double().numpy(), scheduler.config.prediction_type, offset)
    except ValueError as error:
        raise UnavailableError(f"scheduler {name}", str(error)) from error


def square(unet: Any, channels: int | None = None) -> int:
    """Side of a denoiser's inputs.

    Args:
        unet: A diffusers network that predicts noise.
        channels: Channels of its inputs and outputs, if they are known.

    Raises:
        UnavailableError: Its inputs are not square, or its inputs and outputs do not have these channels.
    """
    size, config = unet.config.sample_size, unet.config
    sides = set(size) if isinstance(size, list | tuple) else {size}
    if len(sides) != 1 or None in sides:
        raise UnavailableError("target part unet", f"its sample_size is {size}", "use a model of square images")
    channels = channels or config.in_channels
    if {config.in_channels, config.out_channels} != {channels}:
        why = f"{config.in_channels} channels in and {config.out_channels} out, where {channels} are needed"
        raise UnavailableError("target part unet", why, "inpainting, grey and learned-variance models do not fit")
    return int(sides.pop())


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        UnavailableError: Missing or not JSON.
    """
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        why = "no such file" if isinstance(error, FileNotFoundError) else brief(error)
        raise UnavailableError(f"file {path}", why, "give a complete diffusers pipeline folder") from error


def _check_part(folder: Path) -> None:
    if not folder.is_dir():
        why = f"its part {folder.name}/ is missing"
        raise UnavailableError(f"pipeline folder {folder.parent}", why, "give a complete diffusers pipeline folder")


def hash_files(folder: Path) -> dict[str, str]:
    """sha256 of every configuration, tokenizer and safetensors file in a folder.

    Raises:
        UnavailableError: The folder holds none, or cannot be read.
    """
    _check_part(folder)
    try:
        files = sorted(p for p in folder.iterdir() if p.suffix in {".json", ".safetensors", ".txt"})
        hashes = {}
        for path in files:
            with path.open("rb") as file:
                hashes[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UnavailableError(f"target part {folder}", brief(error), "make it readable") from error
    if not hashes:
        raise UnavailableError(f"target part {folder}", "no weights or configuration in it", SAVE)
    return hashes
