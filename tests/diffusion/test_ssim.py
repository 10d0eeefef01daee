import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from mia_bench.diffusion.ssim import ssim


def images(seed, b=3, side=32):
    """Smooth and noisy at once, in [0, 1]."""
    rng = np.random.default_rng(seed)
    smooth = gaussian_filter(rng.uniform(size=(b, 3, side, side)), (0, 0, 3, 3))
    return torch.from_numpy(np.clip(4 * (smooth - 0.5) + 0.5 + rng.normal(0, 0.05, smooth.shape), 0, 1)).float()


def by_hand(x, y, span):
    """Float64, one channel after the other, with scipy's filter; the border where the window overlaps is cut off."""

    def blur(image):
        return gaussian_filter(image, 1.5, truncate=5 / 1.5 + 1e-9)[5:-5, 5:-5]

    c1, c2, found = (0.01 * span) ** 2, (0.03 * span) ** 2, []
    for a, b in zip(x.double().numpy(), y.double().numpy(), strict=True):
        ma, mb = blur(a), blur(b)
        va, vb, cab = blur(a * a) - ma**2, blur(b * b) - mb**2, blur(a * b) - ma * mb
        found.append(((2 * ma * mb + c1) * (2 * cab + c2) / ((ma**2 + mb**2 + c1) * (va + vb + c2))).mean())
    return np.mean(found)


@pytest.mark.parametrize("span", [1.0, 255.0])
def test_known_values(span):
    x, y = images(0) * span, images(1) * span
    for other in (y, 0.5 * x, span - x, x + 0.03 * (y - x)):
        wanted = [by_hand(a, b, span) for a, b in zip(x, other, strict=True)]
        assert ssim(x, other, span).numpy() == pytest.approx(wanted, abs=2e-6)


def test_equal_images_are_exactly_one():
    assert (ssim(images(0), images(0)) == 1).all()


def test_constant_images_differ_in_luminance_alone():
    x, y = torch.full((1, 3, 16, 16), 0.25), torch.full((1, 3, 16, 16), 0.75)
    wanted = (2 * 0.25 * 0.75 + 1e-4) / (0.25**2 + 0.75**2 + 1e-4)
    assert ssim(x, y).item() == pytest.approx(wanted, rel=1e-5)


def test_negatives_of_a_strong_pattern_are_negative():
    x = torch.ones(1, 3, 16, 16)
    x[:, :, ::2, ::2] = x[:, :, 1::2, 1::2] = 0
    assert ssim(x, 1 - x).item() < -0.9


def test_symmetric():
    assert torch.equal(ssim(images(0), images(1)), ssim(images(1), images(0)))


def test_each_sample_on_its_own_to_the_bit():
    x, y = images(0, 7), images(1, 7)
    whole, channels_last = ssim(x, y), [v.contiguous(memory_format=torch.channels_last) for v in (x, y)]
    assert torch.equal(torch.cat([ssim(x[i : i + 1], y[i : i + 1]) for i in range(7)]), whole)
    assert torch.equal(ssim(*channels_last), whole)


@pytest.mark.parametrize("side", [1, 2, 5, 8, 10, 11, 12])
def test_images_smaller_than_the_window(side):
    x, y = images(0)[..., :side, :side], images(1)[..., :side, :side]
    found = ssim(x, y)
    assert (ssim(x, x) == 1).all() and found.isfinite().all() and (found < 0.999).all()


def test_a_window_that_just_fits_is_the_weighted_statistics_of_the_whole():
    x, y = images(0, 1, 11)[:, :1], images(1, 1, 11)[:, :1]
    line = np.exp(-((np.arange(11) - 5) ** 2) / 4.5)
    w = np.outer(line, line) / line.sum() ** 2
    a, b = x[0, 0].double().numpy(), y[0, 0].double().numpy()
    ma, mb = (w * a).sum(), (w * b).sum()
    va, vb, cab = (w * (a - ma) ** 2).sum(), (w * (b - mb) ** 2).sum(), (w * (a - ma) * (b - mb)).sum()
    wanted = (2 * ma * mb + 1e-4) * (2 * cab + 9e-4) / ((ma**2 + mb**2 + 1e-4) * (va + vb + 9e-4))
    assert ssim(x, y).item() == pytest.approx(wanted, rel=1e-5)
