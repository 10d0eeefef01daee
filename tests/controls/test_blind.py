"""The blind control finds differences between the classes, finds none where there is none, and sees no target."""

from __future__ import annotations

import io
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image, ImageEnhance
from sklearn.metrics import roc_auc_score

from mia_bench import Access, Measured
from mia_bench.errors import NothingError
from mia_bench_plugins.controls.blind import Blind, image_features, length_features
from mia_bench_plugins.datasets.fluent_emoji import FluentEmoji

N = 160  # per class in made-up sets


def measure(images, captions):
    return Blind().measure(SimpleNamespace(images=images, captions=captions), target=None)


def put_together(terms, member, groups=None, ids=None):
    n = len(terms["image"])
    ids = tuple(ids or (f"s{i}" for i in range(n)))
    terms = {name: values.astype(np.float64) for name, values in terms.items()}
    return Measured(terms, ids, np.ones(n, bool), tuple(groups or ids), member)


def score(features, measured):
    return Blind(Blind.Params(features=features)).score(measured, None)


@pytest.fixture(scope="module")
def emoji():
    samples = [s for s in FluentEmoji().samples() if s.split == "audit"]
    images, captions = [s.open() for s in samples], [s.caption for s in samples]
    return SimpleNamespace(
        images=images,
        captions=captions,
        member=np.array([s.member for s in samples]),
        ids=[s.id for s in samples],
        terms=measure(images, captions),
    )


@pytest.fixture(scope="module")
def few(emoji):
    """N + N emoji, without a difference between the classes."""
    rows = np.r_[np.flatnonzero(emoji.member)[:N], np.flatnonzero(~emoji.member)[:N]]
    return SimpleNamespace(
        images=[emoji.images[i] for i in rows],
        captions=[emoji.captions[i] for i in rows],
        member=emoji.member[rows],
        terms={name: values[rows] for name, values in emoji.terms.items()},
    )


@pytest.mark.parametrize("features", ["image", "caption", "both", "encoder"])
def test_the_embedded_split_is_fair(emoji, features):
    values = score(features, put_together(emoji.terms, emoji.member, ids=emoji.ids))
    assert values.shape == (800,)
    assert roc_auc_score(emoji.member, values) == pytest.approx(0.5, abs=0.06)


def test_brighter_members_are_found(few):
    images = [
        ImageEnhance.Brightness(image).enhance(0.9 if member else 1.0)
        for image, member in zip(few.images, few.member, strict=True)
    ]
    measured = put_together(measure(images, few.captions), few.member)
    for features in ("image", "both", "encoder"):
        assert roc_auc_score(few.member, score(features, measured)) > 0.9
    assert 0.4 < roc_auc_score(few.member, score("caption", measured)) < 0.6


@pytest.mark.parametrize("change", [str.title, lambda c: c.replace(", ", " | "), lambda c: c + " stock photo"])
def test_captions_that_differ_are_found(few, change):
    captions = [change(c) if m else c for c, m in zip(few.captions, few.member, strict=True)]
    measured = put_together(measure(few.images, captions), few.member)
    for features in ("caption", "both"):
        assert roc_auc_score(few.member, score(features, measured)) > 0.9


@pytest.mark.parametrize("qualities", [(75, 95), (90, 95), (80, 75)])
def test_members_saved_at_another_jpeg_quality_are_found(few, qualities):
    images = [
        saved(image, qualities[0] if member else qualities[1])
        for image, member in zip(few.images, few.member, strict=True)
    ]
    measured = put_together(measure(images, few.captions), few.member)
    assert roc_auc_score(few.member, score("image", measured)) > 0.97


def saved(image, quality):
    file = io.BytesIO()
    image.convert("RGB").save(file, "JPEG", quality=quality)
    return Image.open(file).convert("RGB")


def test_lower_case_members_are_found(few):
    captions = [c.lower() if m else c.capitalize() for c, m in zip(few.captions, few.member, strict=True)]
    measured = put_together(measure(few.images, captions), few.member)
    assert roc_auc_score(few.member, score("caption", measured)) > 0.97


def test_nothing_is_found_under_permuted_labels(few):
    aucs = []
    for seed in range(8):
        member = np.random.default_rng(seed).permutation(few.member)
        aucs.append(roc_auc_score(member, score("both", put_together(few.terms, member))))
    assert np.mean(aucs) == pytest.approx(0.5, abs=0.04)


def test_copies_of_a_sample_do_not_leak_through_the_folds(few):
    """Every sample twice, labels at random: only grouping keeps a copy from being recognised."""
    member = np.repeat(np.random.default_rng(3).permutation(few.member), 2)
    terms = {name: np.repeat(values, 2, axis=0) for name, values in few.terms.items()}
    groups = [f"g{i // 2}" for i in range(len(member))]
    grouped = roc_auc_score(member, score("both", put_together(terms, member, groups)))
    ungrouped = roc_auc_score(member, score("both", put_together(terms, member)))
    assert grouped < 0.62
    assert ungrouped > grouped + 0.2


@pytest.mark.parametrize("copies", [1, 2])
def test_the_order_of_samples_changes_nothing(few, copies):
    n = len(few.member)
    groups, ids = [f"g{i // copies}" for i in range(n)], [f"s{i}" for i in range(n)]
    there = score("both", put_together(few.terms, few.member, groups, ids))
    rows = np.random.default_rng(0).permutation(n)
    terms = {name: values[rows] for name, values in few.terms.items()}
    back = put_together(terms, few.member[rows], [groups[i] for i in rows], [ids[i] for i in rows])
    assert np.array_equal(score("both", back), there[rows])


def test_features_do_not_depend_on_the_batch(few):
    alone = measure(few.images[3:4], few.captions[3:4])
    for name, values in alone.items():
        assert np.array_equal(values[0], few.terms[name][3]), name


@pytest.mark.parametrize("size", [(8, 8), (9, 400), (513, 700), (1600, 1200)])
@pytest.mark.parametrize("kind", ["flat", "noise"])
def test_every_image_gives_finite_features(size, kind):
    pixels = np.zeros((*size, 3), np.uint8)
    if kind == "noise":
        pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    terms = measure([Image.fromarray(pixels)], ["x"])
    assert {name: values.shape for name, values in terms.items()} == {
        "image": (1, 53),
        "thumbnail": (1, 192),
        "embedding": (1, 64),
        "caption": (1, 1024),
        "length": (1, 7),
    }
    assert all(np.isfinite(values).all() for values in terms.values())


def test_what_some_features_say():
    flat = image_features(Image.new("RGB", (64, 64), "white"))
    assert flat[:7] == pytest.approx([1, 0, 1, 1, 1, 1, 1])  # mean, deviation, percentiles of red
    assert flat[21:23] == [0, 1]  # black, white
    assert length_features("Ab 1!é") == pytest.approx([np.log(7), np.log(3), 1 / 6, 1 / 6, 1 / 6, 1 / 6, 1])


def test_levels_are_those_of_the_pixels():
    pixels = np.random.default_rng(0).integers(0, 256, (41, 37, 3), dtype=np.uint8)
    levels = np.reshape(image_features(Image.fromarray(pixels))[:21], (3, 7))
    flat = pixels.reshape(-1, 3) / 255
    expected = [flat.mean(0), flat.std(0), *np.percentile(flat, [5, 25, 50, 75, 95], axis=0, method="inverted_cdf")]
    assert levels == pytest.approx(np.transpose(expected))


def test_the_grid_of_a_jpeg_shows():
    smooth = Image.linear_gradient("L").resize((64, 64)).rotate(30, expand=False).convert("RGB")
    blocks = smooth.resize((8, 8), Image.Resampling.BOX).resize((64, 64), Image.Resampling.NEAREST)
    assert min(image_features(blocks)[38:40]) > max(image_features(smooth)[38:40]) + 1


def test_sets_without_captions(few):
    terms = measure(few.images, [None, ""] * N)
    assert not terms["caption"].any()
    assert not terms["length"].any()
    measured = put_together(terms, few.member)
    assert np.array_equal(score("both", measured), score("image", measured))
    with pytest.raises(NothingError, match="no captions"):
        score("caption", measured)


def test_sets_too_small(few):
    rows = np.r_[:9, N : 2 * N]
    terms = {name: values[rows] for name, values in few.terms.items()}
    with pytest.raises(NothingError, match="9 groups of members, 10 needed"):
        score("image", put_together(terms, few.member[rows]))
    with pytest.raises(NothingError, match="4 groups of non-members"):
        groups = [f"g{i if i < N else i % 4}" for i in range(2 * N)]
        score("image", put_together(few.terms, few.member, groups))
    with pytest.raises(NothingError, match="label"):
        score("image", put_together(few.terms, None))
    rows = np.r_[:10, N : N + 10]
    terms = {name: values[rows] for name, values in few.terms.items()}
    assert np.isfinite(score("both", put_together(terms, few.member[rows]))).all()


def test_what_the_harness_reads():
    assert Blind.meta.access is Access.NONE
    assert not Blind.meta.needs
    assert Blind().queries() == 0
    modality = {name: Blind(Blind.Params(**p)).modality for name, p in {"": {}, **Blind.presets}.items()}
    assert modality == {"": "both", "image": "image", "caption": "caption", "encoder": "image"}
    measuring = [Blind.Params(**p).measuring() for p in ({}, *Blind.presets.values())]
    assert all(m == measuring[0] for m in measuring), "the presets share one measurement"


def test_what_is_measured_is_of_the_encoders_weights(tmp_path, monkeypatch):
    before = Blind.Params().measuring()
    (tmp_path / "image_text").mkdir()
    (tmp_path / "image_text" / "model.safetensors").write_bytes(b"other")
    monkeypatch.setattr("mia_bench_plugins.controls.blind.ICONS", tmp_path)
    assert Blind.Params().measuring() != before


def test_the_encoder_sees_the_image_alone(few):
    terms = measure(few.images, [None] * len(few.images))
    assert np.array_equal(terms["embedding"], few.terms["embedding"])
    assert np.linalg.norm(terms["embedding"], axis=1) == pytest.approx(1, abs=1e-5)
    kept = {**few.terms, "image": 0 * few.terms["image"], "thumbnail": 0 * few.terms["thumbnail"]}
    given, bare = (put_together(values, few.member) for values in (few.terms, kept))
    assert np.array_equal(score("encoder", given), score("encoder", bare))


def test_importing_it_is_cheap():
    code = (
        "import sys, mia_bench_plugins.controls.blind; print({'sklearn', 'scipy', 'torch', 'PIL'} & set(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
