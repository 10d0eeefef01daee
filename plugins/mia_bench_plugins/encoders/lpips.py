"""LPIPS: distance of deep features, weighted by how people judge (Zhang et al., CVPR 2018, arXiv:1801.03924)."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from mia_bench import hookimpl
from mia_bench.encoder import Encoder, EncoderMeta, Offer
from mia_bench_plugins.encoders.local import LocalEncoder, torch_cache

if TYPE_CHECKING:
    import torch

    from mia_bench.target import Target


def _meta(name: str, network: str, file: str) -> EncoderMeta:
    weights = f"torchvision.models.{network.lower()}(weights='IMAGENET1K_V1')"
    return EncoderMeta(
        name=name,
        summary=f"LPIPS v0.1 on {network}",
        offers=frozenset({Offer.DISTANCE}),
        source=f"https://download.pytorch.org/models/{file} (the lpips package holds the linear heads only)",
        fetch=f'python -c "import torchvision; {weights}"',
        argument="FILE",
        licence="BSD-2-Clause; torchvision's weights BSD-3-Clause",
        citation="Zhang et al., CVPR 2018",
    )


class Lpips(LocalEncoder):
    """The `lpips` package's own network, version 0.1, with torchvision's trunk where it lies; images in [-1, 1].

    The trunk is torchvision's download, recognised by the hash in its name, or any file of that architecture that is
    named after the colon.
    """

    meta = _meta("lpips", "VGG16", "vgg16-397923af.pth")
    net_name = "vgg"

    def files(self) -> Mapping[str, Path]:
        heads = self.packaged("lpips", f"weights/v0.1/{self.net_name}.pth")
        if self.argument:
            return {"heads": heads, "trunk": self.given()}
        trunk = torch_cache() / self._trunk
        if not trunk.is_file():
            raise self.missing(f"the trunk {trunk.name} is not in {trunk.parent}")
        return {"heads": heads, "trunk": trunk}

    def weights(self) -> Mapping[str, str]:
        found = super().weights()
        begins = self._trunk.rsplit("-", 1)[1].removesuffix(".pth")
        if not self.argument and not found["trunk"].startswith(begins):
            raise self.missing(f"{torch_cache() / self._trunk} is damaged: its sha256 does not begin with {begins}")
        return found

    @property
    def _trunk(self) -> str:
        return self.meta.source.split(" ")[0].rsplit("/", 1)[1]

    def load(self, target: Target) -> None:
        import torch

        self.weights()  # the trunk is the one it should be
        files = self.files()
        trunk = self.tensors(files["trunk"])
        with warnings.catch_warnings(), torch.device("meta"):  # the package would draw random weights first
            warnings.simplefilter("ignore")
            from lpips import LPIPS

            net = LPIPS(net=self.net_name, pnet_rand=True, pretrained=False, verbose=False)
        state = self.tensors(files["heads"])
        for name in net.state_dict():
            if place := re.fullmatch(r"net\.slice\d\.(.+)", name):
                state[name] = trunk.get(f"features.{place[1]}")
        try:
            if absent := [name for name, value in state.items() if value is None]:
                raise ValueError(f"it lacks {absent[0]}")
            net.load_state_dict(state, strict=False, assign=True)
        except (RuntimeError, ValueError) as error:
            raise self.missing(f"{files['trunk']} is no trunk of {self.meta.summary}: {error}") from error
        self.net = net.float().eval().requires_grad_(False).to(target.device)

    def between(self, images: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
        distances: torch.Tensor = self.net(images, others)
        return distances.flatten()


class LpipsAlex(Lpips):
    """The same on AlexNet."""

    meta = _meta("lpips-alex", "AlexNet", "alexnet-owt-7be5be79.pth")
    net_name = "alex"


@hookimpl
def mia_bench_encoders() -> list[type[Encoder]]:
    return [Lpips, LpipsAlex]
