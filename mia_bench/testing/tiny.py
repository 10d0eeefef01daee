"""Targets and an encoder so small that a test takes a moment; random, of a fixed seed, without weights on disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from mia_bench.attack import Capability
from mia_bench.black_box import BlackBox, Request
from mia_bench.dataset import Sample, Split
from mia_bench.diffusion.noise import KeyedNoise, NoiseSource
from mia_bench.encoder import Encoder, EncoderMeta, Offer
from mia_bench.target import Target, TargetMeta

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

    from mia_bench.batch import Batch

SIDE = 32  # px


class TinyTarget(Target):
    """A convolution that sees the timestep and the caption; latents are the image, eight pixels a side.

    It can do everything an attack may need. The argument is a seed: `TinyTarget("8")` is another model.
    """

    meta = TargetMeta(
        name="tiny",
        summary="one convolution",
        kind="latent",
        capabilities=frozenset(Capability) - {Capability.REFERENCE},
        argument="SEED",
    )
    channels, side = 4, 8

    def weights(self) -> Mapping[str, str]:
        return {"kernel": self.argument or "7"}

    def load(self) -> None:
        import torch

        from mia_bench.diffusion.schedule import Schedule

        self.schedule = Schedule.from_betas(np.linspace(1e-4, 0.02, 1000))
        self.image_size, self.sample_shape = SIDE, (self.channels, self.side, self.side)
        source = torch.Generator().manual_seed(int(self.argument or 7))
        self.kernel = torch.randn(self.channels, self.channels, 3, 3, generator=source) / 6
        self.net = torch.nn.Conv2d(self.channels, self.channels, 3, padding=1, bias=False).requires_grad_(False)
        self.net.weight.copy_(self.kernel)

    def network(self) -> torch.nn.Module:
        return self.net

    def predict(self, x: torch.Tensor, t: torch.Tensor, **states: torch.Tensor) -> torch.Tensor:
        import torch

        bias = states["encoder_hidden_states"].mean(1)[:, : self.channels] + t[:, None] / 1000
        return torch.tanh(self.net(x) + bias[:, :, None, None])

    def posterior(self, pixels: torch.Tensor) -> torch.Tensor:
        import torch
        from torch.nn import functional

        small = functional.avg_pool2d(pixels, 4)
        mean = torch.cat([small, small[:, :1]], dim=1)
        return torch.stack([mean, torch.full_like(mean, 0.1)], dim=1)

    def picture(self, latents: torch.Tensor) -> torch.Tensor:
        import torch

        return torch.nn.functional.interpolate(latents[:, :3], scale_factor=4)

    def tokens(self, texts: Sequence[str]) -> torch.Tensor:
        import torch

        return torch.tensor([[ord(c) for c in text[:24].ljust(24)] for text in texts])

    def text_states(self, tokens: torch.Tensor) -> torch.Tensor:
        import torch

        return torch.sin(tokens[:, :, None] * torch.arange(1.0, 5.0))


class TinyPixels(TinyTarget):
    """The same in pixel space."""

    meta = TinyTarget.meta.model_copy(
        update={"name": "tiny-pixels", "summary": "one convolution on pixels", "kind": "pixel"}
    )
    channels, side = 3, SIDE


class TinyGenerator(BlackBox):
    """Makes images and shows nothing of how: a wash of colour by caption and seed, laid over the image if given one."""

    meta = TargetMeta(
        name="tiny-generator",
        summary="washes of colour",
        kind="pixel",
        capabilities=frozenset({Capability.GENERATE, Capability.CAPTION, Capability.VARY}),
    )

    @property
    def size(self) -> int:
        return SIDE

    def weights(self) -> Mapping[str, str]:
        return {}

    def made(self, requests: Sequence[Request]) -> list[Image]:
        return [_wash(request) for request in requests]


def _wash(request: Request) -> Image:
    from PIL import Image

    text = [*request.caption.encode(), request.seed % 251]
    tone = np.random.default_rng(text).integers(0, 256, (4, 4, 3)).astype(np.uint8)
    wash = Image.fromarray(tone).resize((request.size, request.size))
    return wash if request.image is None else Image.blend(request.image, wash, request.strength or 0.0)


class StubEncoder(Encoder):
    """Two random convolutions that offer everything; never registered, so that no run can name it."""

    meta = EncoderMeta(name="stub", summary="random", offers=frozenset(Offer), source="tests", argument="SEED")

    def load(self, target: Target) -> None:
        import torch

        seed = sum(map(ord, self.argument)) if not self.argument.isdigit() else int(self.argument)
        source = torch.Generator().manual_seed(seed)
        kernels = [torch.randn(*shape, generator=source) / 5 for shape in ((16, 3, 3, 3), (16, 16, 3, 3))]
        self.kernels = [kernel.to(target.device) for kernel in kernels]

    def maps(self, images: torch.Tensor) -> torch.Tensor:
        import torch
        from torch.nn import functional

        for kernel in self.kernels:
            images = torch.tanh(functional.conv2d(images, kernel, stride=2, padding=1))
        return images

    def embedded(self, images: torch.Tensor) -> torch.Tensor:
        from torch.nn import functional

        return functional.adaptive_avg_pool2d(self.maps(images), 2).flatten(1)

    def attended(self, images: torch.Tensor) -> torch.Tensor:
        return self.maps(images).square().sum(1)

    def worded(self, texts: Sequence[str]) -> torch.Tensor:
        import torch

        letters = torch.tensor([[float(text.count(chr(97 + i % 26))) for i in range(64)] for text in texts])
        return torch.sin(letters + torch.arange(64.0))

    def captioned(self, images: torch.Tensor) -> list[str]:
        return [f"a picture of {int(image.mean() * 100)}" for image in images]


def icons(
    members: int, others: int, calibration: tuple[int, int] = (0, 0), unknown: int = 0, **changes: Any
) -> list[Sample]:
    """Samples of the embedded dataset under labels of their own: images of 32 px with captions.

    Args:
        members: How many of the audit set are called members.
        others: And how many non-members.
        calibration: Members and non-members of the calibration set.
        unknown: Samples of the audit set without a label.
        changes: Fields that all of them get, e.g. `caption=None`.
    """
    counts: dict[tuple[Split, bool | None], int] = {("audit", True): members, ("audit", False): others}
    counts |= {("audit", None): unknown, ("calibration", True): calibration[0], ("calibration", False): calibration[1]}
    kinds = [kind for kind, count in counts.items() for _ in range(count)]
    return [replace(s, split=k, member=m, **changes) for s, (k, m) in zip(_embedded(), kinds, strict=False)]


@cache
def _embedded() -> Sequence[Sample]:
    from mia_bench.engine.prepare import DEFAULT_DATASET
    from mia_bench.plugins import Registry

    return Registry.load().dataset(DEFAULT_DATASET)().samples()


def batch_of(target: Target, samples: Sequence[Sample], noise: NoiseSource | None = None) -> Batch:
    """A batch as a run makes it, for an opened target.

    Args:
        target: After `target.open(rows=4)`.
        samples: B samples.
        noise: Of seed 0, if None.
    """
    from mia_bench.engine.loader import load
    from mia_bench.engine.measure import make_batch

    return make_batch(load(samples, target.image_size).complete(), target, noise or KeyedNoise(0))
