"""Models in the layout of the Hugging Face hub: from a folder or the hub's cache, safetensors only, no remote code."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mia_bench.errors import brief
from mia_bench_plugins.encoders.local import LocalEncoder, fitted

if TYPE_CHECKING:
    import torch

MODES = {2: "bilinear", 3: "bicubic"}  # Pillow's numbers, as preprocessor_config.json has them


class HubEncoder(LocalEncoder):
    """An encoder of one or more hub repositories.

    Attributes:
        repositories: `owner/name` of each. The argument is the folder of the one, or the folder of their folders.
    """

    repositories: tuple[str, ...]

    def folder(self, repository: str) -> Path:
        """Where a repository lies: under the folder that the user named, else in the hub's cache.

        Raises:
            UnavailableError: Nowhere, or without weights as safetensors.
        """
        name = repository.split("/")[1]
        if self.argument:
            found = Path(self.argument).expanduser()
            found = found if len(self.repositories) == 1 else found / name
        else:
            from huggingface_hub import constants

            cache = Path(constants.HF_HUB_CACHE) / f"models--{repository.replace('/', '--')}"
            try:
                found = cache / "snapshots" / (cache / "refs" / "main").read_text(encoding="utf-8").strip()
            except OSError as error:
                raise self.missing(f"{repository} is not in the hub's cache, {cache.parent}") from error
        self.holds(found, "config.json", "preprocessor_config.json")
        if not any(found.glob("*.safetensors")):
            raise self.missing(
                f"no weights as *.safetensors in {found}, and no other format is read: load them in transformers, save "
                "them with `save_pretrained`, and name that folder"
            )
        return found

    def files(self) -> Mapping[str, Path]:
        return {
            f"{repository}/{path.name}": path
            for repository in self.repositories
            for path in sorted(self.folder(repository).iterdir())
            if path.suffix in {".json", ".safetensors", ".txt"}
        }

    def model(self, cls: Any, repository: str, **options: Any) -> Any:
        """A network in float32, complete: what a checkpoint lacks would be random.

        Raises:
            UnavailableError: The checkpoint is damaged, or one of another model.
        """
        folder = self.folder(repository)
        try:
            with quiet():
                found, report = cls.from_pretrained(
                    str(folder), local_files_only=True, use_safetensors=True, output_loading_info=True, **options
                )
        except Exception as error:  # many kinds, from OSError to safetensors' own
            raise self.missing(f"{folder} cannot be read: {brief(error)}") from error
        if absent := sorted(name for name in report["missing_keys"] if not name.endswith("position_ids")):
            raise self.missing(f"{folder} is no whole {cls.__name__}: it lacks {len(absent)} weights, e.g. {absent[0]}")
        return found.float().eval().requires_grad_(False)

    def tokenizer(self, cls: Any, repository: str) -> Any:
        """A tokenizer.

        Raises:
            UnavailableError: Its files are missing or damaged.
        """
        folder = self.folder(repository)
        try:
            with quiet():
                return cls.from_pretrained(str(folder), local_files_only=True)
        except Exception as error:
            raise self.missing(f"no tokenizer in {folder}: {brief(error)}") from error

    def preparation(self, repository: str) -> Preparation:
        """How the repository says that images are prepared."""
        path = self.folder(repository) / "preprocessor_config.json"
        try:
            return Preparation(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise self.missing(f"{path} does not say how images are prepared: {brief(error)}") from error


class Preparation:
    """Resizing, cutting and normalising, as `preprocessor_config.json` has it."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.mean, self.std = list(config["image_mean"]), list(config["image_std"])
        self.side = _side(config["size"])
        self.crop = _side(config.get("crop_size", self.side)) if config.get("do_center_crop") else self.side
        self.mode = MODES[config.get("resample", 3)]

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        return fitted(images, self.side, self.crop, self.mean, self.std, self.mode)


def _side(size: Any) -> int:
    return int(size.get("shortest_edge") or size["height"]) if isinstance(size, Mapping) else int(size)


@contextmanager
def quiet() -> Iterator[None]:
    """A block in which transformers says nothing."""
    import transformers.utils.logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def fetching(*repositories: str) -> str:
    """The command that fills the hub's cache: configuration, tokenizer and safetensors alone."""
    return " && ".join(f'hf download {repository} --include "*.[jst]*"' for repository in repositories)
