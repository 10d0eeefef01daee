"""DreamSim: distance of an ensemble of ViTs tuned on human judgement (Fu et al., NeurIPS 2023, arXiv:2306.09344)."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import redirect_stdout
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

from mia_bench import hookimpl
from mia_bench.encoder import Encoder, EncoderMeta, Offer
from mia_bench.errors import brief
from mia_bench_plugins.encoders.local import LocalEncoder, fitted

if TYPE_CHECKING:
    import torch

    from mia_bench.target import Target

BACKBONE = "checkpoints/dino_vitbase16_pretrain.pth"
FILES = (
    "dino_vitb16_pretrain.pth",
    "clip_vitb16_pretrain.pth.tar",
    "open_clip_vitb16_pretrain.pth.tar",
    "ensemble_lora",
    BACKBONE,
)
CODE = "from dreamsim import dreamsim; dreamsim(device='cpu', cache_dir='FOLDER')"


class DreamSim(LocalEncoder):
    """The `dreamsim` package's own ensemble, with the weights it once downloaded to a folder.

    The package takes DINO's code from GitHub each time; here it gets its own copy of it, and no network.
    """

    meta = EncoderMeta(
        name="dreamsim",
        summary="DreamSim, ensemble of three ViT-B/16",
        offers=frozenset({Offer.EMBED, Offer.DISTANCE}),
        source="https://github.com/ssundaram21/dreamsim/releases, by the package dreamsim",
        fetch=f'pip install dreamsim && python -c "{CODE}", then name the folder: dreamsim:FOLDER',
        argument="FOLDER",
        licence="MIT",
        citation="Fu et al., NeurIPS 2023",
    )

    def files(self) -> Mapping[str, Path]:
        self.packaged("dreamsim", fetch=self.meta.fetch)
        folder = self.given(*FILES)
        places = (folder / name for name in FILES)
        paths = [path for place in places for path in (_in(place) if place.is_dir() else [place])]
        return {str(path.relative_to(folder)): path for path in paths}

    def load(self, target: Target) -> None:
        import torch

        folder = Path(self.argument).expanduser()
        self.files()

        def backbone(repository: str, name: str, **_: Any) -> torch.nn.Module:
            from dreamsim.feature_extraction.vision_transformer import vit_base

            if (repository, name) != ("facebookresearch/dino:main", "dino_vitb16"):
                raise ValueError(f"the package wants {name} of {repository}")
            net: torch.nn.Module = vit_base(patch_size=16, num_classes=0)
            net.load_state_dict(self.tensors(folder / BACKBONE))
            return net

        before = torch.hub.get_dir()
        try:
            from unittest.mock import patch  # slow to import, and every command reads this file

            from dreamsim import dreamsim

            with patch.object(torch.hub, "load", backbone), redirect_stdout(None):
                net, _ = dreamsim(device=target.device, cache_dir=str(folder), dreamsim_type="ensemble")
        except Exception as error:  # the package's, peft's and torch's
            raise self.missing(f"the package dreamsim cannot load {folder}: {brief(error)}") from error
        finally:
            torch.hub.set_dir(before)  # the package changes it
        self.net, self.one = net.eval().requires_grad_(False), Lock()

    def embedded(self, images: torch.Tensor) -> torch.Tensor:
        with self.one:  # the package collects features in the network itself, so calls must not overlap
            features: torch.Tensor = self.net.embed(fitted(images, 224, 224, [0.0] * 3, [1.0] * 3))
        return features.reshape(len(images), -1)


def _in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix in {".json", ".safetensors", ".bin"})


@hookimpl
def mia_bench_encoders() -> list[type[Encoder]]:
    return [DreamSim]
