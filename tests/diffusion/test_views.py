"""Images as files hold them."""

import numpy as np
import torch
from PIL import Image

from mia_bench.diffusion.views import as_file

PIXELS = torch.rand(3, 3, 20, 20, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_256_levels():
    found = as_file(PIXELS, 20)
    assert torch.allclose((found + 1) * 127.5, ((PIXELS + 1) * 127.5).round(), atol=1e-4)


def test_resized_with_antialiasing():
    """Stripes of one pixel, sampled without, would stay black and white or become one of both."""
    stripes = torch.where(torch.arange(32) % 2 == 0, 1.0, -1.0).expand(1, 3, 32, 32)
    found = as_file(stripes, 8)
    assert found.shape == (1, 3, 8, 8) and found.abs().max() < 0.1


def test_as_the_file_would_be():
    levels = ((PIXELS[1] + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()
    wanted = np.asarray(Image.fromarray(levels).resize((7, 7), Image.Resampling.BILINEAR))
    assert np.allclose((as_file(PIXELS, 7)[1].permute(1, 2, 0) + 1) * 127.5, wanted, atol=1e-4)


def test_alone_as_in_a_batch():
    assert torch.equal(as_file(PIXELS[2:], 9), as_file(PIXELS, 9)[2:])
