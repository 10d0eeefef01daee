"""ReDiffuse: variations in closed form, their means, and the settings of the authors' program."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from captioned import Captioned, asked, batch_of, make, measured, opened, scores
from distances import Distance, by_heart, gap, random_convolution
from pydantic import ValidationError

from mia_bench.attack import Measured
from mia_bench.diffusion.sampler import guided
from mia_bench.diffusion.schedule import Schedule
from mia_bench.diffusion.ssim import ssim
from mia_bench.encoder import Offer
from mia_bench.errors import NothingError
from mia_bench.testing import TinyTarget
from mia_bench_plugins.attacks.rediffuse import ReDiffuse, grey_distance

FEW = {"t": 100, "k": 50, "n": 3}


def seeing(target, encoder=None):
    target.encoders = {"pixels": encoder or Distance(), "ssim": Distance(lambda x, y: 1 - ssim(x, y, 2.0))}
    return opened(target)


def curved(x, t, c):
    return torch.sin(3 * x) * 0.3 + 0.02 * c + t.view(-1, 1, 1, 1) / 5000


def test_a_denoiser_that_predicts_nothing_leaves_the_mean_noise():
    target = seeing(Captioned())
    batch, attack = batch_of(target), make(ReDiffuse, t=300)
    found, schedule = measured(attack, batch, target)["distances"], target.schedule
    ratio = float(schedule.noise[300] / schedule.signal[300])
    noisy = [batch.pixels + ratio * batch.eps(300, draw) for draw in range(10)]
    variations = torch.stack([(float(schedule.signal[0]) * x).clamp(-1, 1) for x in noisy])
    for i in range(10):
        assert found[:, i] == pytest.approx(gap(variations[: i + 1].mean(0), batch.pixels).numpy(), abs=1e-4)
    assert (np.diff(found[:, [0, 3, 9]]) < 0).all(), "the noise averages out"
    assert (scores(attack, batch, target) == -found[:, -1]).all()


@pytest.mark.parametrize(
    ("params", "told"),
    [({}, [200, 100]), ({"t": 250}, [250, 150, 50]), ({"t": 10, "k": 10}, [10]), ({"t": 5, "k": 10}, [5])],
)
def test_the_way_down(params, told):
    target = seeing(Captioned())
    make(ReDiffuse, n=1, **params).measure(batch_of(target), target)
    assert [t for t, _ in target.seen] == told


@pytest.mark.parametrize("kind", ["pixel", "latent"])
@pytest.mark.parametrize(
    ("params", "pixel", "latent"),
    [
        ({}, 20, 10),
        ({"guidance": 3.0}, 40, 20),
        ({"n": 2, "t": 201, "k": 100}, 6, 6),
        (ReDiffuse.presets["repo-sd"], 2, 2),
        (ReDiffuse.presets["resnet"], 20, 10),
        (ReDiffuse.presets["quick"], 10, 10),
    ],
)
def test_queries(kind, params, pixel, latent):
    target = seeing(Captioned())
    attack = ReDiffuse(ReDiffuse.Params(**params).resolved(kind))
    wanted = {"pixel": pixel, "latent": latent}[kind]
    assert attack.queries() == wanted == asked(attack, batch_of(target), target)


def test_the_start_is_what_every_attack_noises():
    """The first query of a variation is that of the loss at t with the same draw."""
    target = seeing(Captioned(curved))
    batch = batch_of(target)
    for draw in range(2):
        target.denoiser(target.schedule.noised(batch.x0, batch.eps(100, draw), 100), 100, batch.condition)
    before = target.denoiser.executed
    make(ReDiffuse, t=100, k=50, n=2).measure(batch, target)
    assert target.denoiser.executed - before == 2 * len(batch)


def test_variations_fill_calls_together():
    """Few images cost what their rows cost: one call a step, not one a step and variation."""
    target = seeing(Captioned(curved))
    batch = batch_of(target)
    target.denoiser.rows.rows = 10 * len(batch)
    calls = target.denoiser.rows.calls
    make(ReDiffuse).measure(batch, target)
    assert target.denoiser.rows.calls - calls == 2


def test_images_known_by_heart_score_higher():
    members, others = ([f"{kind}{i}" for i in range(4)] for kind in "mn")
    target = seeing(Captioned())
    target = seeing(Captioned(by_heart(batch_of(target, ["x"] * 4, ids=members).pixels)))
    for params in ({}, {"encoder": "ssim"}, FEW):
        known, unknown = (
            scores(make(ReDiffuse, **params), batch_of(target, ["x"] * 4, ids=ids), target) for ids in (members, others)
        )
        assert known.min() > unknown.max()


def test_captions_and_guidance():
    target = seeing(Captioned(lambda x, t, c: 0.1 * c.expand_as(x)))
    own, none, empty = (
        scores(make(ReDiffuse, **FEW), batch_of(target, captions), target)
        for captions in (("a", "bb", "ccc"), (None, None, None), ("", "", ""))
    )
    assert (own != none).all() and (none == empty).all()
    batch = batch_of(target)
    twice = scores(make(ReDiffuse, **FEW, guidance=2.0), batch_of(target, ("aa", "bbbb", "cccccc")), target)
    assert scores(make(ReDiffuse, **FEW, guidance=4.0), batch, target) == pytest.approx(twice, rel=1e-4), "w c = 4 c"


def test_whose_distance():
    distance = frozenset({Offer.DISTANCE})
    for kind, name in (("pixel", "pixels"), ("latent", "ssim")):
        assert ReDiffuse(ReDiffuse.Params().resolved(kind)).encoders() == {name: distance}
        assert ReDiffuse(ReDiffuse.Params(encoder="lpips").resolved(kind)).encoders() == {"lpips": distance}
    assert make(ReDiffuse, setting="repo-sd").encoders() == make(ReDiffuse, rule="resnet").encoders() == {}


def test_as_the_stable_diffusion_program_has_it(emoji_samples, make_batch):
    """One variation of 2z - 1 with linear betas, guided, against the decoded latents, in grey."""
    target = seeing(TinyTarget())
    batch = make_batch(target, emoji_samples[:3])
    attack = ReDiffuse(ReDiffuse.Params(**ReDiffuse.presets["repo-sd"]).resolved("latent"))
    linear = Schedule.from_betas(np.linspace(0.00085, 0.012, 1000))
    x = linear.noised(2 * batch.x0 - 1, batch.eps(50), 50)
    x = linear.jump(x, guided(target, x, 50, batch.condition, batch.null, 7.5), 50, 0)
    made, own = target.decode((x + 1) / 2).clamp(-1, 1), target.decode(batch.x0).clamp(-1, 1)
    grey = torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
    own, made = (((image + 1) / 2 * grey).sum(1, keepdim=True) for image in (own, made))
    wanted = [ssim(a[None], b[None], float(b.max() - b.min())) for a, b in zip(own, made, strict=True)]
    found = scores(attack, batch, target)
    assert found == pytest.approx(torch.cat(wanted).numpy() - 1, abs=2e-4)


def test_grey_pictures_over_their_range():
    flat, colour = torch.zeros(1, 3, 16, 16), torch.zeros(1, 3, 16, 16)
    colour[:, 0], colour[:, 1] = 0.587, -0.299  # of the same luma
    assert float(grey_distance(flat, colour)) == pytest.approx(0.0, abs=1e-6)
    x = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    y = (x + 0.1).clamp(-1, 1)
    shrunk = grey_distance((x + 1) / 4 - 1, (y + 1) / 4 - 1)
    assert torch.allclose(shrunk, grey_distance(x, y), atol=1e-4), "the range is the picture's own"


def test_the_map_that_a_network_reads():
    target = seeing(Captioned(curved))
    batch = batch_of(target)
    mean = make(ReDiffuse, **FEW).means(batch, target)[-1]
    whole = make(ReDiffuse, **FEW, rule="resnet").measure(batch, target)["map"]
    assert torch.equal(whole, (batch.pixels - mean).abs())
    small = make(ReDiffuse, **FEW, rule="resnet", side=4).measure(batch, target)["map"]
    assert torch.allclose(small, whole.unflatten(3, (4, 4)).mean(4).unflatten(2, (4, 4)).mean(3), atol=1e-6)


def test_a_network_learns_from_maps(monkeypatch):
    """Members err in the upper half, others in the lower: the mean tells nothing."""
    monkeypatch.setattr("mia_bench.resnet.WIDTHS", (8, 8, 8, 8))
    rng, n, cal = np.random.default_rng(0), 32, 16
    member = np.arange(n) % 2 == 0
    maps = rng.uniform(0, 0.1, (n, 3, 8, 8))
    maps[member, :, :4] += 0.5
    maps[~member, :, 4:] += 0.5
    ids = tuple(f"s{i:02}" for i in range(n))
    everything = Measured({"map": maps}, ids, np.arange(n) >= cal, ids)
    calibration = replace(everything.select(~everything.audit), member=member[:cal])
    attack = make(ReDiffuse, rule="resnet", epochs=30)
    found = attack.score(everything, calibration)
    audit = found.values[cal:]
    assert found.tags == ("label-assisted",) and audit[member[cal:]].min() > audit[~member[cal:]].max()
    assert make(ReDiffuse, rule="resnet", epochs=3, seed=4).params.measuring() == attack.params.measuring()
    with pytest.raises(NothingError, match="no calibration set"):
        attack.score(everything, None)


@pytest.mark.parametrize("params", [{}, {"rule": "resnet", "side": 5}, {"setting": "repo-sd"}])
def test_the_bits_do_not_depend_on_the_batch(params):
    target = seeing(Captioned(curved), random_convolution())
    captions, ids = tuple("x" * (i + 1) for i in range(6)), [f"s{i}" for i in range(6)]
    attack = make(ReDiffuse, **FEW, **params)
    whole = measured(attack, batch_of(target, captions, ids=ids), target)
    part = measured(attack, batch_of(target, captions[4:1:-1], ids=ids[4:1:-1]), target)
    assert all(np.array_equal(part[name], whole[name][[4, 3, 2]]) for name in whole)


def test_pictures():
    target = seeing(Captioned(curved))
    batch, attack = batch_of(target), make(ReDiffuse, **FEW)
    found, before = attack.measure(batch, target)["distances"], target.denoiser.executed
    pictures = attack.artifacts(batch, target)
    assert list(pictures) == ["original", "mean variation", "difference"]
    assert target.denoiser.executed == before, "what was measured is asked again"
    assert all(p.shape == batch.pixels.shape and p.abs().max() <= 1 for p in pictures.values())
    assert torch.allclose(gap(pictures["original"], pictures["mean variation"]), found[:, -1])
    assert torch.allclose((pictures["difference"] + 1).mean((1, 2, 3)), found[:, -1])


@pytest.mark.parametrize("params", [{"t": 0}, {"t": 1000}, {"k": 0}, {"n": 0}, {"guidance": -1.0}, {"rule": "vote"}])
def test_bad_parameters_are_refused(params):
    with pytest.raises(ValidationError):
        ReDiffuse.Params(**params)
