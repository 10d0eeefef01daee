"""Sweep: its distances in closed form, what repeats and encoders share, and its rules."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from captioned import Captioned, asked, batch_of, make, measured, opened
from distances import Distance, by_heart, gap, random_convolution
from pydantic import ValidationError

from mia_bench.attack import PARTIAL, Measured
from mia_bench.diffusion.sampler import path
from mia_bench.diffusion.views import resized
from mia_bench.encoder import Offer
from mia_bench.testing import TinyTarget
from mia_bench_plugins.attacks.sweep import Sweep

FEW = {"strengths": (0.02, 0.5, 1.0), "steps": 10, "repeats": 2}


def seeing(target, **encoders):
    target.encoders = encoders or {"dreamsim": Distance()}
    return opened(target)


def curved(x, t, c):
    return torch.sin(3 * x) * 0.3 + 0.02 * c + t.view(-1, 1, 1, 1) / 5000


def terms(v, autoencoder=0.0, calibrating=None):
    """What was measured, from distances `(N, strengths, repeats)`; the first `calibrating` samples calibrate."""
    ids = tuple(f"s{i:03}" for i in range(len(v)))
    audit = np.arange(len(v)) >= (calibrating or 0)
    return Measured({"distances": v, "autoencoder": np.full(len(v), autoencoder)}, ids, audit, ids)


def test_a_denoiser_that_predicts_nothing_leaves_the_noise():
    target = seeing(Captioned())
    batch, attack = batch_of(target), make(Sweep, **FEW)
    found, schedule = measured(attack, batch, target)["distances"], target.schedule
    assert found.shape == (3, 3, 2)
    for i, strength in enumerate(FEW["strengths"]):
        t = path(target, 10, strength)[0]
        for j in range(2):
            noisy = batch.pixels + float(schedule.noise[t] / schedule.signal[t]) * batch.eps(t, j, "start")
            made = (float(schedule.signal[0]) * noisy).clamp(-1, 1)
            wanted = gap(made, batch.pixels)
            assert found[:, i, j] == pytest.approx(wanted.numpy(), abs=1e-4)


def test_at_full_strength_the_start_keeps_a_trace_of_the_image():
    target = seeing(Captioned())
    make(Sweep, strengths=(1.0,), repeats=1, guidance=1.0).measure(batch_of(target), target)
    (t, first), *_ = target.seen
    batch = batch_of(target)
    assert t == 981 and target.schedule.signal[981] > 0
    assert torch.equal(first[:3], target.schedule.noised(batch.x0, batch.eps(981, 0, "start"), 981))


@pytest.mark.parametrize(
    ("params", "queries"),
    [
        ({}, 1208),
        ({"guidance": 1.0}, 604),
        (Sweep.presets["quick"], 62),
        ({"strengths": (0.02,), "steps": 10, "repeats": 1}, 2),
        ({"strengths": (0.02,), "steps": 49, "repeats": 1}, 2),
        ({"strengths": (0.02,), "steps": 50, "repeats": 1}, 2),
        ({"strengths": (0.29,), "steps": 100, "repeats": 1}, 58),
    ],
)
def test_queries(params, queries):
    attack = make(Sweep, **params)
    target = seeing(Captioned(), **{attack.params.encoder: Distance()})
    assert attack.queries() == queries == asked(attack, batch_of(target), target)


def test_what_is_shared():
    """Encoders judge the same images; repeats share nothing; strengths of equally many steps are one."""
    target = seeing(Captioned(curved), dreamsim=Distance(), lpips=random_convolution())
    batch, attack = batch_of(target), make(Sweep, **FEW)
    first = measured(attack, batch, target)
    once = target.denoiser.executed
    assert once == attack.queries() * len(batch) and (first["distances"][..., 0] != first["distances"][..., 1]).all()
    other = measured(make(Sweep, **FEW, encoder="lpips"), batch, target)
    assert target.denoiser.executed == once and (other["distances"] != first["distances"]).all()
    same = measured(make(Sweep, **{**FEW, "strengths": (0.03, 0.1, 0.19)}), batch, target)
    assert target.denoiser.executed == once, "one step each"
    assert (same["distances"] == first["distances"][:, :1]).all()


@pytest.mark.parametrize("params", [{"rule": "highest"}, {"rule": "mean"}, {"rule": "mean", "aggregate": "mean"}])
def test_images_known_by_heart_score_higher(params):
    members, others = ([f"{kind}{i}" for i in range(4)] for kind in "mn")
    target = seeing(Captioned())
    images = batch_of(target, ["x"] * 4, ids=members).pixels
    target = seeing(Captioned(by_heart(images)), dreamsim=Distance(lambda x, y: (x - y).square().mean((1, 2, 3))))
    attack = make(Sweep, **FEW, **params)
    known, unknown = (
        attack.score(measured(attack, batch_of(target, ["x"] * 4, ids=ids), target), None).values
        for ids in (members, others)
    )
    assert (known[:, None] > unknown).mean() > 0.7 and known.mean() > unknown.mean()


def test_training_free_rules():
    v = np.random.default_rng(0).uniform(0.1, 0.9, (5, 3, 4))
    order = {"strengths": (0.5, 1.0, 0.2)}  # the highest is not the last
    for rule, wanted in (("highest", v.min(2)[:, 1]), ("mean", v.min(2).mean(1)), ("autoencoder", np.full(5, 0.7))):
        found = make(Sweep, rule=rule, **order).score(terms(v, 0.7), None)
        assert (found.values == -wanted).all() and found.tags == (PARTIAL,)
    averaged = make(Sweep, rule="highest", aggregate="mean", **order).score(terms(v), None)
    assert (averaged.values == -v.mean(2)[:, 1]).all()
    bare = make(Sweep, **order).score(terms(v), None)
    assert (bare.values == -v.min(2)[:, 1]).all() and "training-free" in bare.tags, "there is no calibration set"


def test_the_published_threshold_is_the_sign():
    v = np.full((3, 6, 4), 0.5)
    v[:, -1] = np.array([[0.9, 0.24, 0.8, 0.7], [0.26, 0.3, 0.3, 0.3], [0.1, 0.1, 0.1, 0.1]])
    found = make(Sweep, **Sweep.presets["course"]).score(terms(v), None).values
    assert (found > 0).tolist() == [True, False, True]
    assert found == pytest.approx([0.01, -0.01, 0.15])


def test_a_regression_on_the_strengths():
    """Members are nearer at the middle strength and farther at the last: no training-free rule sees it."""
    rng, n, cal = np.random.default_rng(0), 120, 60
    member = np.arange(n) % 2 == 0
    v = rng.normal(0.5, 0.05, (n, 3, 2))
    v[member, 1] -= 0.2
    v[member, 2] += 0.2
    everything = terms(v, calibrating=cal)
    calibration = replace(everything.select(~everything.audit), member=member[:cal])
    attack = make(Sweep, **FEW)
    found = attack.score(everything, calibration)
    assert found.tags == (PARTIAL, "label-assisted")
    assert found.values[member].min() > found.values[~member].max(), "higher = member"
    scaled = replace(everything, terms={**everything.terms, "distances": v * [[[1], [1000], [1]]]})
    again = attack.score(scaled, replace(calibration, terms=scaled.select(~everything.audit).terms))
    assert again.values == pytest.approx(found.values, rel=1e-3), "standardised"


def test_what_the_course_shows_its_encoder():
    eye = Distance()
    target = seeing(Captioned(curved), lpips=eye)
    batch = batch_of(target)
    attack = make(Sweep, **{**Sweep.presets["course"], **FEW, "side": 8})
    attack.measure(batch, target)
    own, made = eye.seen[0]
    assert torch.equal(own[:3], (resized(batch.pixels, 8) + 1) / 2) and made.shape == (4, 3, 8, 8)
    assert all(float(one.min()) >= 0 and float(one.max()) <= 1 for pair in eye.seen for one in pair)
    plain = Distance()
    target.encoders = {"dreamsim": plain}
    plain.open(target)
    make(Sweep, **FEW).measure(batch, target)
    assert torch.equal(plain.seen[0][0][:3], batch.pixels)


def test_resizing_averages_all_pixels():
    board = torch.tensor([1.0, -1.0]).repeat(8)
    board = (board[:, None] * board).expand(2, 3, 16, 16)
    assert resized(board, 4).abs().max() < 0.05
    smooth = torch.linspace(-1, 1, 16).expand(2, 3, 16, 16)
    larger = resized(smooth, 32)
    assert larger.shape == (2, 3, 32, 32) and (larger.diff(dim=3) >= 0).all()
    assert torch.equal(resized(smooth, 16), smooth)


def test_captions_guide_it():
    target = seeing(Captioned(lambda x, t, c: 0.1 * c.expand_as(x)))
    own, none, empty = (
        measured(make(Sweep, **FEW), batch_of(target, captions), target)["distances"]
        for captions in (("a", "bb", "ccc"), (None, None, None), ("", "", ""))
    )
    assert (own != none).all() and (none == empty).all()


def test_the_autoencoders_own_error(emoji_samples, make_batch):
    target = seeing(TinyTarget())
    batch = make_batch(target, emoji_samples[:3])
    found = make(Sweep, **FEW).measure(batch, target)["autoencoder"]
    assert torch.equal(found, gap(target.decode(batch.x0).clamp(-1, 1), batch.pixels))
    assert (found > 0).all()


def test_the_bits_do_not_depend_on_the_batch():
    target = seeing(Captioned(curved), dreamsim=random_convolution())
    captions, ids = tuple("x" * (i + 1) for i in range(6)), [f"s{i}" for i in range(6)]
    attack = make(Sweep, **FEW, side=11)
    whole = measured(attack, batch_of(target, captions, ids=ids), target)
    part = measured(attack, batch_of(target, captions[4:1:-1], ids=ids[4:1:-1]), target)
    assert all(np.array_equal(part[name], whole[name][[4, 3, 2]]) for name in whole)


def test_pictures_over_the_strengths():
    target = seeing(Captioned(curved))
    batch, attack = batch_of(target), make(Sweep, **{**FEW, "strengths": (1.0, 0.02)})
    attack.measure(batch, target)
    before = target.denoiser.executed
    pictures = attack.artifacts(batch, target)
    assert list(pictures) == ["original", "strength 0.02", "strength 1", "difference"]
    assert target.denoiser.executed == before, "what was measured is asked again"
    assert all(p.shape == batch.pixels.shape and p.abs().max() <= 1 for p in pictures.values())
    assert torch.equal(pictures["original"], batch.pixels)
    assert torch.allclose(pictures["difference"] + 1, (pictures["strength 1"] - batch.pixels).abs(), atol=1e-6)


def test_names_and_parameters():
    assert make(Sweep).encoders() == {"dreamsim": frozenset({Offer.DISTANCE})}
    assert Sweep.aliases == {"sweep-lpips": "sweep[lpips]", "sweep-dreamsim": "sweep[dreamsim]"}
    same = make(Sweep).params.measuring()
    assert all(make(Sweep, **changes).params.measuring() == same for changes in ({"rule": "mean"}, {"threshold": 1.0}))
    assert make(Sweep, repeats=1).params.measuring() != same
    for bad in ({"strengths": ()}, {"strengths": (0.0,)}, {"strengths": (1.1,)}, {"repeats": 0}, {"rule": "vote"}):
        with pytest.raises(ValidationError):
            Sweep.Params(**bad)
