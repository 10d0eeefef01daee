"""EfficientNet-Lite0 knows photographs: it was trained on them, and is put together as it was trained."""

import torch
from opened import blurred, opened, photograph

from mia_bench_plugins.encoders.efficientnet import EfficientNet


def test_it_tells_a_palace_from_a_daisy():
    encoder = opened(EfficientNet())
    pictures = torch.cat([photograph("china", 224), photograph("flower", 224)])
    logits = encoder.embed(pictures) @ encoder.state["_fc.weight"].T + encoder.state["_fc.bias"]
    assert logits.argmax(1).tolist() == [698, 985], "ImageNet's palace and daisy"
    # What the package efficientnet-lite-pytorch 0.1.0 gives for these pictures with these weights.
    assert torch.allclose(logits.softmax(1).max(1).values, torch.tensor([0.321, 0.189]), atol=0.002)


def test_a_blurred_photograph_is_nearer_than_another():
    encoder, picture = opened(EfficientNet()), photograph("flower", 128)
    near, other = encoder.distance(picture, blurred(picture, 5)), encoder.distance(picture, photograph("china", 128))
    assert near.item() < 0.5 * other.item()
