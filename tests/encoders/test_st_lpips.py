"""ST-LPIPS, rebuilt, gives what its authors' package gives."""

import subprocess
import sys

import pytest
import torch
from opened import opened, photograph

from mia_bench_plugins.encoders.st_lpips import StLpips, StLpipsVgg

# stlpips-pytorch 0.0.2, LPIPS(net=..., variant="shift_tolerant") on `waves`, sides 32 and 65.
REFERENCE = {
    StLpips: [0.0203871, 0.3499621, 0.0571015, 0.6190129],
    StLpipsVgg: [0.0528749, 0.7250088, 0.1135347, 0.7158134],
}


def waves(side):
    """Two pairs of pictures from a formula, `(2, 3, side, side)` in [-1, 1]."""
    at = torch.arange(side, dtype=torch.float64) / side
    y, x, c = at[:, None], at[None, :], torch.arange(3.0, dtype=torch.float64)[:, None, None]
    first = torch.stack([torch.sin(9 * x + 5 * y + c), torch.cos(25 * x * y + 2 * c)])
    second = torch.stack([torch.sin(9 * x + 6 * y + c), torch.sin(40 * (x - y) ** 2 + c)])
    return first.float(), second.float()


@pytest.mark.parametrize("cls", REFERENCE)
def test_the_packages_own_numbers(cls):
    found = torch.cat([opened(cls()).distance(*waves(side)) for side in (32, 65)])
    assert torch.allclose(found, torch.tensor(REFERENCE[cls]), rtol=1e-4, atol=1e-7)


def test_a_shift_by_a_pixel_moves_it_less_than_another_picture():
    encoder, picture = opened(StLpips()), photograph("flower", 96)
    shifted = encoder.distance(picture[..., :-1], picture[..., 1:])
    assert shifted.item() < 0.05 * encoder.distance(picture, photograph("china", 96)).item()


def test_its_package_is_never_imported():
    code = (
        "import sys; from mia_bench_plugins.encoders.st_lpips import StLpips; e = StLpips(); e.weights();"
        "print({'torch', 'stlpips_pytorch', 'torchvision', 'PIL'} & set(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
