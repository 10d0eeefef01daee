"""The embedded dataset is what its manifest says."""

from __future__ import annotations

import hashlib
from collections import Counter

import pytest

from mia_bench.errors import UnavailableError
from mia_bench_plugins.datasets.fluent_emoji import FOLDER, FluentEmoji


@pytest.fixture(scope="module")
def samples():
    return FluentEmoji().samples()


def test_classes(samples):
    counts = Counter((s.split, s.member) for s in samples)
    assert counts == {("audit", True): 491, ("audit", False): 491, ("calibration", False): 108}


def test_every_icon_has_the_pixels_its_hash_names(samples):
    for sample in samples:
        image = sample.open()
        assert (image.mode, image.size) == ("RGB", (32, 32))
        assert hashlib.sha256(image.tobytes()).hexdigest() == sample.content, sample.id


def test_ids_groups_and_pixels_are_unique(samples):
    assert len(samples) == 1090
    for values in ([s.id for s in samples], [s.group for s in samples], [s.content for s in samples]):
        assert len(set(values)) == 1090


def test_captions_are_there(samples):
    assert all(s.caption and s.caption == s.caption.strip() for s in samples)
    assert next(s for s in samples if s.id == "confetti-ball").caption == "confetti ball, celebrate, celebration, party"


def test_a_damaged_installation_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr("mia_bench_plugins.datasets.fluent_emoji.FOLDER", tmp_path)
    with pytest.raises(UnavailableError) as caught:
        FluentEmoji().samples()
    assert "fluent-emoji" in str(caught.value)
    assert FOLDER.is_dir()
