import numpy as np
import pytest
import torch
from captioned import SIDE, Captioned, asked, batch_of, make, measured, opened, scores
from pydantic import ValidationError

from mia_bench import Capability
from mia_bench_plugins.attacks.wen import Wen

ROOT = (3 * SIDE * SIDE) ** 0.5
CAPTIONS = ("a", "bb", "ccc")
TOP = 981


def by_caption(x, t, c):
    return 0.1 * x + c.expand_as(x)


def test_captions_without_effect_have_no_magnitude():
    target = opened(Captioned(lambda x, t, c: 0.3 * x))
    for params in ({}, {"steps": 5, "generations": 2}):
        assert (scores(make(Wen, **params), batch_of(target), target) == 0).all()


def test_magnitude_of_a_known_effect():
    """e(x, t, c) - e(x, t, null) is the caption's length everywhere, at every step."""
    target = opened(Captioned(by_caption))
    for params in ({}, {"steps": 4, "generations": 3}):
        found = scores(make(Wen, **params), batch_of(target, CAPTIONS), target)
        assert found == pytest.approx(ROOT * np.array([1.0, 2.0, 3.0]), rel=1e-5)


def test_root_first_then_mean():
    effect = {981: 1.0, 961: 3.0}
    target = opened(Captioned(lambda x, t, c: (c * effect[int(t[0])]).expand_as(x)))
    assert scores(make(Wen, steps=2), batch_of(target, ("a",)), target) == pytest.approx([2 * ROOT], rel=1e-5)


def test_terms_are_kept_by_generation_and_step():
    target = opened(Captioned(lambda x, t, c: c * t.view(-1, 1, 1, 1) * (1 + x)))
    power = measured(make(Wen, steps=3, generations=2), batch_of(target), target)["power"]
    assert power.shape == (3, 2, 3) and len(np.unique(power)) == power.size


@pytest.mark.parametrize("guidance", [1.0, 7.5])
def test_it_watches_a_guided_generation_from_noise(guidance):
    """The inputs it asks about are those of the sampler's own walk."""
    from mia_bench.diffusion.sampler import levels, walk

    target = opened(Captioned(by_caption))
    batch = batch_of(target)
    make(Wen, steps=3, guidance=guidance).measure(batch, target)
    times, inputs = [t for t, _ in target.seen], [x for _, x in target.seen]
    assert times == [981, 981, 961, 961, 941, 941]  # given and null; rows of four hold three samples of each
    path = levels(target, 50)[::-1][:4]
    start = batch.eps(TOP, 0, quantity="start")
    states = [start, *walk(target, start, path, batch.condition, batch.null, guidance=guidance)]
    found = torch.cat(inputs[:2])[:6]
    assert torch.equal(found[:3], found[3:]) and torch.equal(found[:3], torch.Tensor(start))
    for k in (1, 2):
        found = torch.cat(inputs[2 * k : 2 * k + 2])[:6]
        torch.testing.assert_close(found[:3], torch.Tensor(states[k]), rtol=1e-4, atol=1e-5)


def test_the_image_is_never_read(emoji, emoji_samples, make_batch, monkeypatch):
    batch = make_batch(emoji, emoji_samples[:2])
    wanted = make(Wen).measure(batch, emoji)["power"]
    other = make_batch(emoji, emoji_samples[:2])
    monkeypatch.setattr(emoji, "posterior", lambda pixels: pytest.fail("encoded the image"))
    other._pixels = -other._pixels
    assert torch.equal(make(Wen).measure(other, emoji)["power"], wanted)


def test_captions_matter(emoji, emoji_samples, make_batch):
    batch = make_batch(emoji, emoji_samples[:2])
    wanted = make(Wen).measure(batch, emoji)["power"]
    batch.captions = batch.captions[::-1]
    assert not torch.equal(make(Wen).measure(batch, emoji)["power"], wanted)
    batch.captions = (None, "")
    assert (make(Wen).measure(batch, emoji)["power"] == 0).all()


def test_noise_is_the_samples_own(emoji, emoji_samples, make_batch):
    """The bits do not depend on the batch; generations differ; the first is the same however many follow."""
    attack = make(Wen, steps=2, generations=2)
    whole = attack.measure(make_batch(emoji, emoji_samples[:5]), emoji)["power"]
    part = attack.measure(make_batch(emoji, emoji_samples[:5][::-1][1:3]), emoji)["power"]
    assert torch.equal(part, whole[[3, 2]])
    assert (whole[:, 0] != whole[:, 1]).all()
    first = make(Wen).measure(make_batch(emoji, emoji_samples[:5]), emoji)["power"]
    assert torch.equal(first[:, 0, 0], whole[:, 0, 0])


def test_the_first_step_is_shared_and_free_of_guidance(emoji, emoji_samples, make_batch):
    batch = make_batch(emoji, emoji_samples[:3])
    first = make(Wen).measure(batch, emoji)["power"]
    before = emoji.denoiser.executed
    assert torch.equal(make(Wen, guidance=1.0).measure(batch, emoji)["power"], first)
    make(Wen, steps=2).measure(batch, emoji)
    assert emoji.denoiser.executed == before + 2 * 3


@pytest.mark.parametrize(("preset", "queries"), [("", 2), ("steps10", 20), ("steps50", 100), ("steps50x4", 400)])
def test_queries(preset, queries):
    attack, target = make(Wen, **Wen.presets.get(preset, {})), opened(Captioned(by_caption))
    assert attack.queries() == queries == asked(attack, batch_of(target), target)


def test_it_needs_captions():
    assert Wen.meta.caption == "required" and Capability.CAPTION in make(Wen).needs()


@pytest.mark.parametrize("params", [{"steps": 0}, {"steps": 51}, {"steps": 11, "grid": 10}, {"generations": 0}])
def test_bad_parameters_are_refused(params):
    with pytest.raises(ValidationError):
        Wen.Params(**params)
