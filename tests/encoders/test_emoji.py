"""The embedded encoders know pictures of a style they were not trained on, and captions of them."""

import numpy as np
import pytest
import torch
from opened import opened

from mia_bench_plugins.datasets.fluent_emoji import FluentEmoji
from mia_bench_plugins.encoders.emoji import EmojiClip, EmojiLpips
from mia_bench_plugins.encoders.icons import embedding


@pytest.fixture(scope="module")
def some():
    samples = FluentEmoji().samples()[:200:2]
    pixels = torch.from_numpy(np.stack([np.asarray(s.open()) for s in samples])).permute(0, 3, 1, 2).float()
    return pixels / 127.5 - 1, [s.caption for s in samples]


def test_a_picture_is_nearest_to_its_caption_more_often_than_by_chance(some):
    pixels, captions = some
    encoder = opened(EmojiClip(), rows=100)
    similarity = encoder.embed(pixels) @ encoder.text(captions).T
    assert similarity.shape == (100, 100) and similarity.abs().max() <= 1 + 1e-6
    own = similarity.diagonal()[:, None]
    assert (similarity > own).float().mean() < 0.2, "an unrelated caption fits better: 0.5 by chance"
    assert (similarity.argmax(1) == torch.arange(100)).float().mean() > 0.1, "0.01 by chance"


def test_near_pictures_are_nearer_than_other_pictures(some):
    pixels, _ = some
    encoder = opened(EmojiLpips(), rows=100)
    noise = torch.randn(pixels.shape, generator=torch.Generator().manual_seed(0))
    near = encoder.distance(pixels, (pixels + 0.03 * noise).clamp(-1, 1))
    other = encoder.distance(pixels, pixels.roll(1, 0))
    assert (near < other).float().mean() > 0.95
    assert torch.allclose(other, encoder.distance(pixels.roll(1, 0), pixels), atol=1e-5), "symmetric"


def test_a_large_picture_is_nearest_to_itself_when_small(some):
    pixels, _ = some
    large = pixels[:10].repeat_interleave(8, 2).repeat_interleave(8, 3)
    for encoder in (opened(EmojiLpips(), rows=10), opened(EmojiClip(), rows=10)):
        assert (encoder.embed(large) @ encoder.embed(pixels).T).argmax(1).tolist() == list(range(10))


def test_the_controls_embedding_is_the_encoders(some):
    pixels, _ = some
    images = [s.open() for s in FluentEmoji().samples()[:200:2]]
    found = torch.from_numpy(np.stack([embedding(image) for image in images[:5]]))
    torch.testing.assert_close(found, opened(EmojiClip()).embed(pixels[:5]))
    assert embedding(images[0].resize((300, 200))).shape == (64,), "of any size"
