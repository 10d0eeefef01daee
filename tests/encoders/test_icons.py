"""The embedded encoders know pictures of a style they were not trained on, and captions of them."""

import numpy as np
import pytest
import torch

from mia_bench_plugins.datasets.fluent_emoji import FluentEmoji
from mia_bench_plugins.encoders.icons import IconClip, embedding, perceptual, perceptual_distance


@pytest.fixture(scope="module")
def some():
    samples = FluentEmoji().samples()[:200:2]
    pixels = torch.from_numpy(np.stack([np.asarray(s.open()) for s in samples])).permute(0, 3, 1, 2).float()
    return pixels / 127.5 - 1, [s.caption for s in samples]


def test_a_picture_is_nearest_to_its_caption_more_often_than_by_chance(some):
    pixels, captions = some
    similarity = IconClip().similarity(pixels, captions)
    assert similarity.shape == (100, 100) and similarity.abs().max() <= 1 + 1e-6
    own = similarity.diagonal()[:, None]
    assert (similarity > own).float().mean() < 0.2, "an unrelated caption fits better: 0.5 by chance"
    assert (similarity.argmax(1) == torch.arange(100)).float().mean() > 0.1, "0.01 by chance"


def test_distance_is_zero_for_equal_small_for_near_and_larger_for_other_pictures(some):
    pixels, _ = some
    net = perceptual()
    with torch.no_grad():
        same = perceptual_distance(net, pixels, pixels)
        near = perceptual_distance(net, pixels, (pixels + 0.03 * torch.randn(pixels.shape)).clamp(-1, 1))
        other = perceptual_distance(net, pixels, pixels.roll(1, 0))
    assert same.shape == (100,) and same.abs().max() == 0
    assert (near < other).float().mean() > 0.95
    assert torch.allclose(other, perceptual_distance(net, pixels.roll(1, 0), pixels), atol=1e-5), "symmetric"


def test_distance_does_not_depend_on_the_batch(some):
    pixels, _ = some
    net = perceptual()
    whole = perceptual_distance(net, pixels[:8], pixels[8:16])
    alone = torch.cat([perceptual_distance(net, pixels[i : i + 1], pixels[i + 8 : i + 9]) for i in range(8)])
    assert torch.allclose(whole, alone, rtol=1e-5, atol=1e-7)


def test_an_embedding_is_what_the_similarity_is_made_of(some):
    pixels, _ = some
    images = [s.open() for s in FluentEmoji().samples()[:200:2]]
    found = torch.from_numpy(np.stack([embedding(image) for image in images[:5]]))
    torch.testing.assert_close(found, IconClip().image_net(pixels[:5]))
    assert embedding(images[0].resize((300, 200))).shape == (64,), "of any size"
