"""What every encoder that needs no download must do."""

import pytest
import torch
from opened import blurred, opened, photograph

from mia_bench.encoder import Offer
from mia_bench_plugins.encoders.efficientnet import EfficientNet
from mia_bench_plugins.encoders.emoji import EmojiClip, EmojiLpips
from mia_bench_plugins.encoders.plain import Pixels, Ssim
from mia_bench_plugins.encoders.st_lpips import StLpips, StLpipsVgg
from mia_bench_plugins.encoders.vae import Vae

ALL = (EmojiLpips, EmojiClip, EfficientNet, StLpips, StLpipsVgg, Ssim, Pixels, Vae)


@pytest.fixture(scope="module")
def picture():
    return torch.cat([photograph("flower", 32), photograph("china", 32), photograph("flower", 32).flip(3)])


@pytest.fixture(scope="module", params=ALL, ids=lambda cls: cls.meta.name)
def encoder(request, emoji):
    return opened(request.param(), meta=emoji.meta, image_size=emoji.image_size, posterior=emoji.posterior)


def test_nothing_is_missing_and_every_file_counts(encoder):
    assert encoder.meta.offline
    assert all(path.is_file() for path in encoder.files().values())
    assert set(encoder.weights()) == set(encoder.files()) and all(len(h) == 64 for h in encoder.weights().values())


def test_equal_images_are_at_distance_zero_and_larger_changes_further(encoder, picture):
    assert encoder.distance(picture, picture).abs().max() < 1e-6
    noise = torch.randn(picture.shape, generator=torch.Generator().manual_seed(0))
    near, far = (encoder.distance(picture, (picture + size * noise).clamp(-1, 1)) for size in (0.03, 0.6))
    assert near.shape == (3,) and near.dtype == torch.float32
    assert (near > 0).all() and (far > 2 * near).all()
    slightly, strongly = (encoder.distance(picture, blurred(picture, by)) for by in (3, 11))
    assert (slightly < strongly).all()


def test_a_sample_has_the_same_bits_in_any_batch(encoder, picture):
    whole = encoder.distance(picture, picture.flip(0))
    alone = torch.cat([encoder.distance(picture[i : i + 1], picture[2 - i : 3 - i]) for i in range(3)])
    assert torch.equal(whole, alone)
    if Offer.EMBED in encoder.meta.offers:
        found = encoder.embed(picture)
        assert found.ndim == 2 and torch.equal(
            found[1:], torch.cat([encoder.embed(picture[i : i + 1]) for i in (1, 2)])
        )


@pytest.mark.parametrize("side", [24, 100])
def test_images_of_any_size(encoder, side):
    left, right = photograph("flower", side), photograph("china", side)
    assert encoder.distance(left, right).item() > 10 * abs(encoder.distance(left, left).item())
    if Offer.EMBED in encoder.meta.offers:
        assert encoder.embed(left).isfinite().all()


def test_the_autoencoders_view_needs_an_autoencoder():
    from mia_bench.errors import MiaBenchError
    from mia_bench_plugins.targets.ddpm import DDPM

    with pytest.raises(MiaBenchError, match="no autoencoder"):
        Vae().load(DDPM("anywhere"))
