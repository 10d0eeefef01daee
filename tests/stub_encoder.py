"""An encoder for tests of attacks: a random network of a fixed seed that offers everything and needs no weights."""

import torch
from torch.nn import functional

from mia_bench.encoder import Encoder, EncoderMeta, Offer


class Stub(Encoder):
    """Two random convolutions; never registered, so that no run can name it."""

    meta = EncoderMeta(name="stub", summary="random", offers=frozenset(Offer), source="tests", argument="SEED")

    def load(self, target):
        source = torch.Generator().manual_seed(int(self.argument or 0))
        self.kernels = [torch.randn(*shape, generator=source) / 5 for shape in ((16, 3, 3, 3), (16, 16, 3, 3))]
        self.kernels = [kernel.to(target.device) for kernel in self.kernels]

    def maps(self, images):
        for kernel in self.kernels:
            images = torch.tanh(functional.conv2d(images, kernel, stride=2, padding=1))
        return images

    def embedded(self, images):
        return functional.adaptive_avg_pool2d(self.maps(images), 2).flatten(1)

    def attended(self, images):
        return self.maps(images).square().sum(1)

    def worded(self, texts):
        letters = torch.tensor([[float(text.count(chr(97 + i % 26))) for i in range(64)] for text in texts])
        return torch.sin(letters + torch.arange(64.0))

    def captioned(self, images):
        return [f"a picture of {int(image.mean() * 100)}" for image in images]
