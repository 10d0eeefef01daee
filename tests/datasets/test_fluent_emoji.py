"""The embedded dataset is what its manifest says."""

from __future__ import annotations

import hashlib
from collections import Counter

import numpy as np
import pytest

from mia_bench.errors import UnavailableError
from mia_bench_plugins.datasets.fluent_emoji import FluentEmoji, FluentEmojiMirror


@pytest.fixture(scope="module")
def samples():
    return FluentEmoji().samples()


def test_classes(samples):
    counts = Counter((s.split, s.member) for s in samples)
    assert counts == {
        ("audit", True): 400,
        ("audit", False): 400,
        ("calibration", True): 130,
        ("calibration", False): 130,
        ("memorised", True): 24,
    }


def test_the_mirror_swaps_members_but_not_the_memorised(samples):
    mirrored = {s.id: s for s in FluentEmojiMirror().samples()}
    assert len(mirrored) == len(samples)
    for sample in samples:
        other = mirrored[sample.id]
        assert (other.split, other.digest) == (sample.split, sample.digest)
        assert other.member == (sample.member if sample.split == "memorised" else not sample.member)


def test_no_two_pictures_are_near_duplicates(samples):
    views = np.stack([np.asarray(s.open()) for s in samples]).astype(np.float64).reshape(len(samples), -1) / 255
    square = (views**2).sum(1)
    apart = (square[:, None] + square - 2 * views @ views.T) / views.shape[1]
    np.fill_diagonal(apart, 1)
    assert apart.min() > 0.004


def test_every_icon_has_the_pixels_its_hash_names(samples):
    for sample in samples:
        image = sample.open()
        assert (image.mode, image.size) == ("RGB", (32, 32))
        assert hashlib.sha256(image.tobytes()).hexdigest() == sample.content, sample.id


def test_ids_groups_and_pixels_are_unique(samples):
    for values in ([s.id for s in samples], [s.group for s in samples], [s.content for s in samples]):
        assert len(set(values)) == 1084


def test_captions_are_there(samples):
    assert all(s.caption and s.caption == s.caption.strip() for s in samples)
    assert next(s for s in samples if s.id == "confetti-ball").caption == "confetti ball, celebrate, celebration, party"


def test_a_damaged_installation_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr(FluentEmoji, "folder", tmp_path)
    with pytest.raises(UnavailableError) as caught:
        FluentEmoji().samples()
    assert "fluent-emoji" in str(caught.value)
