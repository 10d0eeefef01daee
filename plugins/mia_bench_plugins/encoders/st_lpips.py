"""ST-LPIPS: LPIPS that a small shift does not move (Ghildyal and Liu, ECCV 2022, arXiv:2207.13686).

The networks are rebuilt here from the paper: the package that holds the weights imports packages it does not declare,
and some of its code is licensed for non-commercial use only. Its trunks are trained for this metric, from blurred
pooling on, so they are not those of LPIPS.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from mia_bench import hookimpl
from mia_bench.encoder import Encoder, EncoderMeta, Offer
from mia_bench_plugins.encoders.local import EXTRA, LocalEncoder

if TYPE_CHECKING:
    import torch

    from mia_bench.target import Target

# Layers of each slice; a slice ends in the map that is compared. Convolutions have stride 1, blurred pooling halves.
Layers = tuple[tuple[str, ...], ...]
CONV, POOL = ("conv", "relu"), ("pool", "blur")
ALEX: Layers = (("conv", "blur", "relu"), POOL + CONV, POOL + CONV, CONV, CONV)
VGG: Layers = (2 * CONV, POOL + 2 * CONV, POOL + 3 * CONV, POOL + 3 * CONV, POOL + 3 * CONV)


class StLpips(LocalEncoder):
    """On AlexNet, the paper's headline."""

    meta = EncoderMeta(
        name="st-lpips",
        summary="shift-tolerant LPIPS on AlexNet",
        offers=frozenset({Offer.DISTANCE}),
        source="the package stlpips-pytorch on PyPI",
        fetch=EXTRA,
        offline=True,
        licence="BSD-2-Clause",
        citation="Ghildyal and Liu, ECCV 2022",
    )
    net_name, layers, window = "alex", ALEX, 3

    def files(self) -> Mapping[str, Path]:
        return {"weights": self.packaged("stlpips_pytorch", f"weights/vST0.0/{self.net_name}_shift_tolerant.pth")}

    def load(self, target: Target) -> None:
        state = self.tensors(self.files()["weights"])
        self.state = {name: value.float().to(target.device) for name, value in state.items()}

    def between(self, images: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
        distance = images.new_zeros(len(images))
        for i, (left, right) in enumerate(zip(self.maps(images), self.maps(others), strict=True)):
            weighted = self.state[f"lin{i}.model.1.weight"] * (left - right).square()
            distance = distance + weighted.sum(1).mean((1, 2))
        return distance

    def maps(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Maps of the five slices, of unit length along channels."""
        from torch.nn import functional

        x = (images - self.state["scaling_layer.shift"]) / self.state["scaling_layer.scale"]
        found, number = [], 0
        for i, layers in enumerate(self.layers, 1):
            for layer in layers:
                place = f"net.slice{i}.{number}"
                if layer == "conv":
                    weight = self.state[f"{place}.weight"]
                    padding = 1 if weight.shape[-1] == 3 else 2
                    x = functional.conv2d(x, weight, self.state[f"{place}.bias"], padding=padding)
                elif layer == "blur":
                    x = functional.pad(x, (2, 2, 2, 2), mode="reflect")
                    x = functional.conv2d(x, self.state[f"{place}.filt"], stride=2, groups=x.shape[1])
                else:
                    x = functional.relu(x) if layer == "relu" else functional.max_pool2d(x, self.window, 1)
                number += 1
            found.append(x / (x.square().sum(1, keepdim=True).sqrt() + 1e-10))
        return found


class StLpipsVgg(StLpips):
    """On VGG16."""

    meta = StLpips.meta.model_copy(update={"name": "st-lpips-vgg", "summary": "shift-tolerant LPIPS on VGG16"})
    net_name, layers, window = "vgg", VGG, 2


@hookimpl
def mia_bench_encoders() -> list[type[Encoder]]:
    return [StLpips, StLpipsVgg]
